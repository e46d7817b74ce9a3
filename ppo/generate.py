"""Answers of a language model to prompts, as a dataset to compare."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lsplugin.preferences import prompt_text
from ppo.answers import answer, longest_first
from ppo.choice import BY_REWARD
from ppo.errors import PPOError
from ppo.inputs import why_unusable
from ppo.select import select

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from lsplugin.preferences import Prompt
    from ppo.choice import Choice
    from ppo.policy import Policy
    from ppo.reward import Members
    from ppo.settings import Sampling
    from ppo.work import WorkFile

ROUNDS = 8
"""How often a prompt is asked for answers that are not empty and not there already, until there are enough."""

_DIGITS = 6  # of a reward, about what float32 holds


def generate(
    policy: Policy,
    prompts: Sequence[Prompt],
    *,
    choice: Choice,
    sampling: Sampling,
    seed: int,
    members: Members | None = None,
    origin: dict[str, Any] | None = None,
    batch_size: int = 64,
    work: WorkFile | None = None,
    tell: Callable[[str], object] = lambda _: None,
    advance: Callable[[int], object] = lambda _: None,
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Sample distinct answers that are not empty, several to a prompt, and keep some of them.

    Args:
        policy: what to sample from, on its device.
        prompts: what to answer.
        choice: how many answers, and which.
        sampling: how to draw.
        seed: an answer's random numbers follow from the seed, its prompt's number and its own.
        members: rewards of answers; needed where they decide which are kept.
        origin: what else the answers depend on, such as the policy's content; it stands in every row's `meta`.
        batch_size: answers sampled together.
        work: where finished prompts are kept; what a killed run with the same settings left there is not done again.
        tell: called with what a person should know.
        advance: called with the number of prompts after every batch.

    Returns:
        Rows in the template's task shape, in the order of the prompts: `prompt`, `answer1` ... and `meta`. And how many prompts
        were dropped, by reason; prompts = rows + dropped.

    Raises:
        PPOError: the choice needs a reward, and there is none.
    """
    if choice.select in BY_REWARD and members is None:
        raise PPOError(f"--select {choice.select} needs a reward: name one with --reward")
    size = max(1, batch_size // choice.sampled)  # prompts of a batch
    told = {"seed": seed, "sampling": asdict(sampling), "select": choice.select} | (origin or {})
    done: list[dict[str, Any]] = []
    if work is not None:
        content = hashlib.sha256(json.dumps(list(prompts)).encode()).hexdigest()
        settings = told | {"choice": asdict(choice), "prompts": content, "batch size": batch_size, "name": policy.name}
        done = work.begin(settings, size=size, tell=tell)
        advance(len(done))
    order = longest_first(prompts)
    while len(done) < len(prompts):
        batch = order[len(done) : len(done) + size]
        found = _batch(policy, {number: prompts[number] for number in batch}, choice, sampling, seed, members, told)
        if work is not None:
            work.add(found)
        done += found
        advance(len(batch))
    lines = [line for _, line in sorted(zip(order, done, strict=True), key=lambda numbered: numbered[0])]
    return [line["row"] for line in lines if "row" in line], Counter(
        line["dropped"] for line in lines if "dropped" in line
    )


def _batch(
    policy: Policy,
    prompts: dict[int, Prompt],
    choice: Choice,
    sampling: Sampling,
    seed: int,
    members: Members | None,
    told: dict[str, Any],
) -> list[dict[str, Any]]:
    """Answer some prompts, by their numbers: for each {"row": ...} or {"dropped": reason}."""
    reasons = {number: why_unusable(policy, prompt) for number, prompt in prompts.items()}
    usable = {number: prompt for number, prompt in prompts.items() if reasons[number] is None}
    candidates = _candidates(policy, usable, choice, sampling, seed)
    enough = {number: texts for number, texts in candidates.items() if len(texts) >= choice.answers}
    scores: dict[int, Tensor] = {}
    if members is not None and enough:
        asked = [(prompts[number], text) for number, texts in enough.items() for text in texts]
        rated = members([prompt for prompt, _ in asked], [text for _, text in asked])
        scores = dict(zip(enough, rated.split([len(texts) for texts in enough.values()]), strict=True))  # type: ignore[no-untyped-call]
    lines: list[dict[str, Any]] = []
    for number, prompt in prompts.items():
        if number in enough:
            texts, rates = enough[number], scores.get(number)
            kept = select(choice, len(texts), rates, draw=f"{seed} {number}")
            meta = told | {"candidates": len(texts)} | _rewards(rates[kept] if rates is not None else None)
            lines.append({"row": _row(prompt, [texts[place] for place in kept], policy.name, meta)})
        else:
            few = f"the model gave fewer than {choice.answers} distinct answers that are not empty in {ROUNDS} rounds"
            lines.append({"dropped": reasons[number] or few})
    return lines


def _candidates(
    policy: Policy, prompts: dict[int, Prompt], choice: Choice, sampling: Sampling, seed: int
) -> dict[int, list[str]]:
    """Sample `choice.sampled` answers to each prompt, and more where too few are distinct: each text once, none empty."""
    found: dict[int, dict[str, None]] = {number: {} for number in prompts}  # texts in order, each once
    asked = Counter[int]()
    for once in range(ROUNDS):
        lacking = {number: choice.answers - len(texts) for number, texts in found.items()}
        wanted = {number: max(0, lack) if once else choice.sampled for number, lack in lacking.items()}
        places = [(number, asked[number] + own) for number, count in wanted.items() for own in range(count)]
        if not places:
            break
        drawn = answer(policy, [prompts[number] for number, _ in places], places, sampling=sampling, seed=seed)
        for (number, _), text in zip(places, drawn.texts, strict=True):
            if text:
                found[number].setdefault(text)
        asked.update(wanted)
    return {number: list(texts) for number, texts in found.items()}


def _rewards(scores: Tensor | None) -> dict[str, Any]:
    """Name the rewards of the kept answers, (N, K), and with several members the deviation between them (n - 1)."""
    if scores is None:
        return {}
    told = {"rewards": scores.mean(dim=1)} | ({"spread": scores.std(dim=1)} if scores.shape[1] > 1 else {})
    return {
        name: {f"answer{number}": round(value, _DIGITS) for number, value in enumerate(values.tolist(), start=1)}
        for name, values in told.items()
    }


def _row(prompt: Prompt, texts: Sequence[str], name: str, told: dict[str, Any]) -> dict[str, Any]:
    fields = {f"answer{number}": text for number, text in enumerate(texts, start=1)}
    meta: dict[str, Any] = {"models": dict.fromkeys(fields, name)} | told
    if not isinstance(prompt, str):
        meta["messages"] = prompt
    return {"prompt": prompt_text(prompt), **fields, "meta": meta}
