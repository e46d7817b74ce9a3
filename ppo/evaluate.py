"""Did tuning make the policy better? Tuned and base answer the same held-out prompts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from ppo.actor import reference_logprobs
from ppo.errors import PPOError
from ppo.sampling import sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from lsplugin.preferences import Prompt
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
    batch_size: int = 64,
    advance: Callable[[int], None] = lambda _: None,
) -> dict[str, Any]:
    """Compare a tuned policy with its base on prompts that neither was tuned on.

    Args:
        policy: the tuned policy.
        base: what it was tuned from.
        prompts: N held-out prompts.
        rewards: what to score answers with, by name.
        sampling: how answers are drawn, for both.
        seed: of the sampling, the same for both.
        batch_size: sequences sampled together.
        advance: called with the number of answers after every batch.

    Returns:
        For each reward and for `length` (tokens): mean and 95% interval of base, of tuned, and of their difference by prompt;
        `kl`, the tuned policy's KL to the base in nats a sequence, estimated from its own answers; and every answer.
    """
    if len(prompts) < 2:
        raise PPOError(f"expected 2 held-out prompts or more, for an interval, found {len(prompts)}")
    before = _answers(base, None, prompts, sampling, seed, batch_size, advance)
    after = _answers(policy, base, prompts, sampling, seed, batch_size, advance)
    report: dict[str, Any] = {"prompts": len(prompts), "kl": interval(after["kl"]), "measures": {}}
    columns = {
        name: (reward(prompts, before["answers"]), reward(prompts, after["answers"]))
        for name, reward in rewards.items()
    }
    columns["length"] = (before["length"], after["length"])
    for name, (old, new) in columns.items():
        report["measures"][name] = {
            "base": interval(old),
            "tuned": interval(new),
            "difference": interval(new - old),
            "wins": float((new > old).float().mean() + 0.5 * (new == old).float().mean()),
        }
    report["samples"] = [
        {
            "prompt": prompt,
            "base": before["answers"][number],
            "tuned": after["answers"][number],
            **{name: [float(old[number]), float(new[number])] for name, (old, new) in columns.items()},
        }
        for number, prompt in enumerate(prompts)
    ]
    return report


def interval(values: Tensor) -> dict[str, float]:
    """Mean of N values with its normal 95% interval: mean, low, high."""
    mean = float(values.mean())
    half = 1.959964 * float(values.std()) / math.sqrt(len(values)) if len(values) > 1 else math.inf
    return {"mean": mean, "low": mean - half, "high": mean + half}


def _answers(
    policy: Policy,
    base: Policy | None,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    seed: int,
    batch_size: int,
    advance: Callable[[int], None],
) -> dict[str, Any]:
    """Answer every prompt once: answers, their length in tokens, (N,), and log policy - log base of each, (N,)."""
    device = policy.model.device
    uniforms = torch.rand(len(prompts), sampling.max_new_tokens, generator=torch.Generator().manual_seed(seed))
    texts: list[str] = []
    lengths, divergences = [], []
    for start in range(0, len(prompts), batch_size):
        batch = prompts[start : start + batch_size]
        input_ids, mask = (tensor.to(device) for tensor in policy.read(batch, room=sampling.max_new_tokens))
        rolled = uniforms[start : start + batch_size].to(device)
        responses, response_mask = sample(policy, input_ids, mask, sampling=sampling, uniforms=rolled)
        texts += policy.write(responses.cpu(), response_mask.cpu())
        lengths.append(response_mask.sum(1).float().cpu())
        if base is not None:
            whole = torch.cat([input_ids, responses], 1), torch.cat([mask, response_mask], 1)
            new, old = (
                reference_logprobs(model, *whole, responses.shape[1], sampling.temperature)
                for model in (policy.model, base.model)
            )
            divergences.append(((new - old) * response_mask).sum(1).cpu())
        advance(len(batch))
    return {
        "answers": texts,
        "length": torch.cat(lengths),
        "kl": torch.cat(divergences) if divergences else torch.zeros(len(texts)),
    }
