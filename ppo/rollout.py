"""A batch of sampled answers: what the policy, its start and the reward say of them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ppo.actor import reference_logprobs
from ppo.core import explained_variance, gae, kl_penalty, masked_mean, token_rewards, whiten
from ppo.errors import PPOError
from ppo.lora import without_adapters
from ppo.processes import gather, share

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from torch import Tensor

    from ppo.settings import PPOConfig, Sampling

AT_A_LOSS = "lower --learning-rate or raise --kl-coef"
DIVERGED = f"the run diverged: {{}} is not finite; {AT_A_LOSS}"


class Rollout(NamedTuple):
    """A batch of sampled answers, with all that an update needs.

    | field | shape | |
    |---|---|---|
    | input_ids | (B, P + T) | prompts padded on the left, responses padded on the right |
    | mask | (B, P + T) | True = real token |
    | response_mask | (B, T) | True = real token, EOS included |
    | logprobs | (B, T) | under the policy that sampled |
    | ref_logprobs | (B, T) | under the frozen start |
    | values | (B, T) | at sampling time |
    | advantages | (B, T) | whitened, unless the settings say otherwise |
    | returns | (B, T) | |
    """

    input_ids: Tensor
    mask: Tensor
    response_mask: Tensor
    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor

    def rows(self, index: Tensor) -> Rollout:
        """Take some of the rows."""
        return Rollout(*(tensor[index] for tensor in self))


def batches(index: Tensor, size: int) -> list[Tensor]:
    """Cut an index into pieces of `size`."""
    return list(index.split(size))  # type: ignore[no-untyped-call]


@torch.no_grad()
def evaluate(
    actor: Any,  # noqa: ANN401 - Fabric's wrapper of an ActorCritic
    ref_model: Any,  # noqa: ANN401
    fabric: Fabric,
    config: PPOConfig,
    sampling: Sampling,
    input_ids: Tensor,
    mask: Tensor,
    response_mask: Tensor,
    scores: Tensor,
    *,
    kl_coef: float,
) -> Rollout:
    """Compute what an update needs of a batch: log-probabilities, values, rewards, advantages.

    Each process runs its share of the rows; what is made of them is the same everywhere.

    Args:
        actor: the policy that sampled, with its value head.
        ref_model: where it started.
        fabric: precision.
        config: settings.
        sampling: how answers were drawn.
        input_ids: (B, P + T).
        mask: (B, P + T).
        response_mask: (B, T).
        scores: what the last tokens are given, (B,).
        kl_coef: weight of the penalty.
    """
    length = response_mask.shape[1]
    found = []
    for rows in batches(torch.arange(len(mask), device=mask.device)[share(len(mask), fabric)], config.pass_size):
        out = actor(input_ids[rows], mask[rows], length, sampling.temperature, with_entropy=False)
        with fabric.autocast(), without_adapters(ref_model):
            ref = reference_logprobs(ref_model, input_ids[rows], mask[rows], length, sampling.temperature)
        found.append(torch.stack([out.logprobs, out.values, ref], dim=1))
    logprobs, values, ref_logprobs = gather(torch.cat(found), fabric).unbind(1)  # (B, 3, T) -> (B, T) each
    kl = kl_penalty(logprobs, ref_logprobs, config.kl_estimator)
    rewards = token_rewards(scores, kl, response_mask, kl_coef=kl_coef)
    advantages, returns = gae(rewards, values, response_mask, gamma=config.gamma, lam=config.lam)
    if config.whiten_advantages:
        advantages = whiten(advantages, response_mask)
    return Rollout(input_ids, mask, response_mask, logprobs, ref_logprobs, values, advantages, returns)


def describe(
    rollout: Rollout, scores: Tensor, judged: Tensor | None, ended: Tensor, *, kl_coef: float
) -> dict[str, float]:
    """Describe a batch in numbers; kl is in nats a sequence, entropy in nats a token, length in tokens.

    Entropy is estimated from the tokens that were drawn, -mean log p: exact on average where they were drawn from all tokens.
    """
    mask = rollout.response_mask
    kl = ((rollout.logprobs - rollout.ref_logprobs) * mask).sum(1)
    numbers = {
        "score": scores.mean(),
        "kl": kl.mean(),
        "objective": (scores - kl_coef * kl).mean(),
        "length": mask.sum(1).float().mean(),
        "ended": ended.float().mean(),
        "entropy": -masked_mean(rollout.logprobs, mask),
        "explained_variance": explained_variance(rollout.values, rollout.returns, mask),
    } | ({} if judged is None else {"judge": judged.mean()})
    values = {name: float(value) for name, value in numbers.items()}
    bad = [name for name, value in values.items() if not math.isfinite(value)]
    if bad:
        raise PPOError(DIVERGED.format(", ".join(bad)))
    return values
