"""The gradient of one minibatch."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch

from ppo.core import masked_mean, policy_loss, value_loss
from ppo.errors import PPOError
from ppo.processes import share, summed, unsynchronised
from ppo.rollout import DIVERGED, Rollout, batches

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from torch import Tensor

    from ppo.settings import PPOConfig, Sampling

LOSSES = ("policy_loss", "value_loss", "clipfrac", "approx_kl")


def backward(
    actor: Any,  # noqa: ANN401 - Fabric's wrapper of an ActorCritic
    fabric: Fabric,
    config: PPOConfig,
    sampling: Sampling,
    batch: Rollout,
) -> dict[str, Tensor]:
    """Add up the gradient of one minibatch, pass by pass; gives its losses.

        L = policy loss + vf_coef value loss - entropy_coef mean entropy

    Means are over the minibatch's tokens: a pass weighs as much as it holds of them, so that cutting it, or sharing it out to
    several processes, changes nothing.
    """
    tokens = batch.response_mask.sum()
    own = torch.arange(len(batch.mask), device=batch.mask.device)[share(len(batch.mask), fabric)]
    total = torch.zeros(len(LOSSES), device=own.device)
    passes = batches(own, config.pass_size)
    for number, rows in enumerate(passes):
        part = batch.rows(rows)
        mask = part.response_mask
        with_entropy = config.entropy_coef > 0
        with unsynchronised(actor, fabric) if number + 1 < len(passes) else nullcontext():
            out = actor(part.input_ids, part.mask, mask.shape[1], sampling.temperature, with_entropy=with_entropy)
            surrogate = policy_loss(out.logprobs, part.logprobs, part.advantages, mask, cliprange=config.cliprange)
            error = value_loss(out.values, part.values, part.returns, mask, cliprange_value=config.cliprange_value)
            loss = surrogate.loss + config.vf_coef * error
            if with_entropy:
                loss = loss - config.entropy_coef * masked_mean(out.entropy, mask)
            weight = mask.sum() / tokens
            fabric.backward(loss * weight * fabric.world_size)  # gradients are averaged over processes
        parts = torch.stack([surrogate.loss, error, surrogate.clipfrac, surrogate.approx_kl])
        total += parts.detach() * weight
    total = summed(total, fabric)
    if not total.isfinite().all():
        raise PPOError(DIVERGED.format("the loss"))
    return dict(zip(LOSSES, total, strict=True))
