"""Did tuning make the policy better? Tuned and base answer the same held-out prompts."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from lsplugin.preferences import prompt_text
from ppo.answers import answer_all
from ppo.errors import PPOError
from ppo.inputs import why_unusable
from ppo.measures import about_as_long, at_kl, best_of, best_of_kl, distinct_share, interval, win_rate

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from lsplugin.preferences import Prompt
    from ppo.answers import Answers
    from ppo.policy import Policy
    from ppo.reward import Reward
    from ppo.settings import Sampling


def evaluate(
    policy: Policy,
    base: Policy,
    prompts: Sequence[Prompt],
    rewards: dict[str, Reward],
    *,
    sampling: Sampling,
    seed: int,
    best_of_n: int = 0,
    batch_size: int = 128,
    advance: Callable[[int], object] = lambda _: None,
) -> dict[str, Any]:
    """Compare a tuned policy with its base on prompts that neither was tuned on.

    Args:
        policy: the tuned policy.
        base: what it was tuned from, or any other.
        prompts: held-out prompts.
        rewards: what to score answers with, by name; best-of-n takes what the first one likes best.
        sampling: how answers are drawn, for both.
        seed: of the sampling, the same for both.
        best_of_n: samples of the base for each prompt, the best of which are a yardstick; 0 leaves it out.
        batch_size: answers sampled together; it changes nothing.
        advance: called with the number of answers after every batch.

    Returns:
        `prompts` and `dropped`, by reason. In `measures`, for each reward and for `length` (tokens): mean and 95% interval of
        base, of tuned, and of their difference by prompt, the share of prompts that tuned `wins`, and `wins_at_like_length`.
        `kl`: of the tuned policy to the base, nats a sequence, estimated from its own answers; None where `no_kl` says why.
        `answers`: of each the shares that `ended` with EOS and that are `empty`, and `distinct` n-grams. `best_of_n`: see
        `_yardstick`. `samples`: every answer, with its scores of base and tuned.

    Raises:
        PPOError: there are less than two prompts to answer.
    """
    reasons = [why_unusable(policy, prompt) or why_unusable(base, prompt) for prompt in prompts]
    prompts = [prompt for prompt, reason in zip(prompts, reasons, strict=True) if reason is None]
    dropped = Counter(reason for reason in reasons if reason is not None)
    if len(prompts) < 2:
        left_out = "".join(f"; {count} left out: {reason}" for reason, count in dropped.items())
        raise PPOError(f"expected 2 held-out prompts or more, for an interval, found {len(prompts)}{left_out}")
    each, no_kl = max(1, best_of_n), why_no_kl(policy, base)
    how: dict[str, Any] = {"sampling": sampling, "seed": seed, "batch_size": batch_size, "advance": advance}
    before = answer_all(base, prompts, each, **how)
    after = answer_all(policy, prompts, 1, base=None if no_kl else base, **how)
    columns = {name: _scores(reward, prompts, before, after) for name, reward in rewards.items()}
    lengths = before.length[::each], after.length
    firsts = {name: (old[:, 0], new) for name, (old, new) in columns.items()} | {"length": lengths}
    kl = None if no_kl else interval(after.kl)
    report: dict[str, Any] = {
        "models": {"base": base.name, "tuned": policy.name},
        "seed": seed,
        "sampling": asdict(sampling),
        "prompts": len(prompts),
        "dropped": dict(dropped),
        "kl": kl,
        "no_kl": no_kl,
        "measures": {name: _compared(old, new, lengths) for name, (old, new) in firsts.items()},
        "answers": {"base": _described(before, each), "tuned": _described(after, 1)},
        "best_of_n": _yardstick(columns, best_of_n, None if kl is None else kl["mean"]) if best_of_n else None,
    }
    report["samples"] = [
        {
            "prompt": prompt,
            "base": before.texts[number * each],
            "tuned": after.texts[number],
            **{name: [float(old[number]), float(new[number])] for name, (old, new) in firsts.items()},
        }
        for number, prompt in enumerate(prompts)
    ]
    return report


def why_no_kl(policy: Policy, base: Policy) -> str | None:
    """Say why a KL cannot be had: the base must know every token that the policy may say, at any place; None where it can."""
    if policy.tokenizer.get_vocab() != base.tokenizer.get_vocab():
        return f"{policy.name} and {base.name} have different tokenizers"
    sizes = [one.model.config.get_text_config().vocab_size for one in (policy, base)]
    if sizes[0] > sizes[1]:
        return f"{policy.name} has {sizes[0]} tokens, {base.name} {sizes[1]}"
    reach = [one.encoder.max_length for one in (policy, base)]
    if reach[0] > reach[1]:
        return f"{policy.name} reads {reach[0]} tokens, {base.name} only {reach[1]}"
    return None


def comparisons(report: dict[str, Any]) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Make tasks for people out of an evaluation: base and tuned answer side by side, in an order that their texts decide.

    Returns:
        Rows in the template's task shape; whose an answer is stands in `meta.models` alone. And how many prompts were left out,
        by reason.

    Raises:
        PPOError: both policies have the same name, so that nobody could tell afterwards who won.
    """
    names = report["models"]
    if names["base"] == names["tuned"]:
        raise PPOError(f"--policy and --base are both {names['base']}: there is nothing to compare")
    rows, left_out = [], Counter[str]()
    for sample in report["samples"]:
        texts = {side: sample[side] for side in ("base", "tuned")}
        if texts["base"] == texts["tuned"]:
            left_out["both answers are the same"] += 1
        elif not all(texts.values()):
            left_out["an answer is empty"] += 1
        else:
            content = json.dumps([sample["prompt"], texts])
            turned = hashlib.sha256(content.encode()).digest()[0] % 2
            sides = dict(zip(("answer1", "answer2"), sorted(texts, reverse=bool(turned)), strict=True))
            meta = {"models": {field: names[side] for field, side in sides.items()}}
            meta |= {name: report[name] for name in ("seed", "sampling")}
            if not isinstance(sample["prompt"], str):
                meta["messages"] = sample["prompt"]
            answers = {field: texts[side] for field, side in sides.items()}
            rows.append({"prompt": prompt_text(sample["prompt"]), **answers, "meta": meta})
    return rows, left_out


def _scores(reward: Reward, prompts: Sequence[Prompt], before: Answers, after: Answers) -> tuple[Tensor, Tensor]:
    """Score all answers of the base, (N, m), and of the tuned policy, (N,); a text that comes again has the very same score."""
    each = len(before.texts) // len(prompts)
    texts = [[*before.texts[n * each : (n + 1) * each], after.texts[n]] for n in range(len(prompts))]
    asked = list(dict.fromkeys((number, text) for number, found in enumerate(texts) for text in found))
    rated = reward([prompts[number] for number, _ in asked], [text for _, text in asked]).tolist()
    known = dict(zip(asked, rated, strict=True))
    scores = torch.tensor([[known[number, text] for text in found] for number, found in enumerate(texts)])
    return scores[:, :-1], scores[:, -1]


def _compared(old: Tensor, new: Tensor, lengths: tuple[Tensor, Tensor]) -> dict[str, Any]:
    """Compare one number of N answers before and after."""
    alike = about_as_long(*lengths)
    return {
        "base": interval(old),
        "tuned": interval(new),
        "difference": interval(new - old),
        "wins": win_rate(new, old),
        "wins_at_like_length": win_rate(new[alike], old[alike]),
    }


def _described(answers: Answers, each: int) -> dict[str, Any]:
    """Describe the first answer to every prompt."""
    texts = answers.texts[::each]
    return {
        "ended": float(answers.ended[::each].float().mean()),
        "empty": sum(not text for text in texts) / len(texts),
        "distinct": {str(n): distinct_share(texts, n) for n in (1, 2, 3)},
    }


def _yardstick(columns: dict[str, tuple[Tensor, Tensor]], count: int, kl: float | None) -> dict[str, Any]:
    """Measure what the base reaches by best-of-n, which is hard to beat at its KL, and how far the tuned policy is above that.

    The KL of best-of-n is the most that it can be, so at a KL best-of-n is at least as good as it is said to be here.

    Args:
        columns: for each reward the scores of the base's samples, (N, m), and of the tuned policy's answers, (N,).
        count: m.
        kl: the tuned policy's, taken as known; None where it is not.

    Returns:
        `points`: n, `kl`, and each reward's mean with its interval. `tuned`: the difference to best-of-n at `kl`, which is the
        tuned policy's own, or the largest n's where the policy is `beyond` it.
    """
    ranked_by = next(iter(columns.values()))[0]
    curves = {
        name: [best_of(old, n, ranked_by) for n in range(1, count + 1)] for name, (old, _) in columns.items()
    }  # each a list of m times (N,)
    sizes = sorted({1, count, *(2**k for k in range(count.bit_length()) if 2**k <= count)})
    points = [
        {"n": n, "kl": best_of_kl(n)} | {name: interval(curve[n - 1]) for name, curve in curves.items()}
        for n in sizes
    ]  # fmt: skip
    if kl is None:
        return {"points": points, "tuned": None}
    found = {name: at_kl(max(0.0, kl), curve) for name, curve in curves.items()}
    place = next(iter(found.values()))[0]
    tuned = {name: interval(new - found[name][1]) for name, (_, new) in columns.items()}
    return {"points": points, "tuned": {"kl": place, "beyond": kl > place, **tuned}}
