"""PPO for language models: the loop.

What it leaves out: no reward model is trained here, no server generates, and the value network is a head on the policy's trunk,
not a model of its own. The maths is in `ppo.core`, sampling in `ppo.sampling`.
"""

from __future__ import annotations

import copy
import math
import random
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ppo.actor import ActorCritic, Outputs, reference_logprobs
from ppo.core import (
    Moments,
    adapted_kl_coef,
    explained_variance,
    gae,
    kl_penalty,
    masked_mean,
    policy_loss,
    shaped_scores,
    token_rewards,
    updated_moments,
    value_loss,
    whiten,
)
from ppo.errors import PPOError
from ppo.sampling import sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightning.fabric import Fabric
    from torch import Tensor

    from lsplugin.preferences import Prompt
    from ppo.policy import Policy
    from ppo.reward import Reward
    from ppo.settings import PPOConfig, Sampling


DIVERGED = "the run diverged: {} is not finite; lower --learning-rate or raise --kl-coef"


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
    | entropy | (B, T) | at sampling time, nats |
    | advantages | (B, T) | whitened, unless the settings say otherwise |
    | returns | (B, T) | |
    """

    input_ids: Tensor
    mask: Tensor
    response_mask: Tensor
    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    entropy: Tensor
    advantages: Tensor
    returns: Tensor

    def rows(self, index: Tensor) -> Rollout:
        """Take some of the rows."""
        return Rollout(*(tensor[index] for tensor in self))


class Update(NamedTuple):
    """What happened in one update.

    Attributes:
        metrics: numbers to log.
        prompts: the batch's prompts.
        answers: what was sampled.
        scores: what the reward gave, (B,).
    """

    metrics: dict[str, float]
    prompts: list[Prompt]
    answers: list[str]
    scores: Tensor


def train(
    config: PPOConfig, sampling: Sampling, policy: Policy, reward: Reward, prompts: Sequence[Prompt], fabric: Fabric
) -> Iterator[Update]:
    """Tune `policy.model` in place; yields after every update.

    Maximises E[r(x, y)] - kl_coef KL(policy || start) by PPO: Ziegler et al. 2019 (arXiv 1909.08593), equation 2.

    Args:
        config: settings.
        sampling: how answers are drawn.
        policy: where to start; it is changed.
        reward: scores of answers.
        prompts: drawn without replacement, over and over.
        fabric: device and precision.
    """
    device = fabric.device
    ref_model = fabric.to_device(copy.deepcopy(policy.model).requires_grad_(requires_grad=False)).eval()
    actor = ActorCritic(policy.model, value_init_std=config.value_init_std)
    optimizer = torch.optim.AdamW(actor.parameters(), lr=config.learning_rate, eps=1e-5, weight_decay=0.0)
    actor, optimizer = fabric.setup(actor, optimizer)
    actor.eval()  # no dropout: it would make the ratio of the first minibatch differ from 1 (Huang et al. 2024)
    dice = torch.Generator().manual_seed(config.seed)
    shuffler = torch.Generator().manual_seed(config.seed)
    stream = prompt_batches(prompts, config.batch_size, seed=config.seed)
    kl_coef, moments = config.kl_coef, Moments()
    for update in range(config.updates):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - update / config.updates)
        # 1. Sample answers to the next prompts.
        batch = next(stream)
        input_ids, mask = (tensor.to(device) for tensor in policy.read(batch, room=sampling.max_new_tokens))
        uniforms = torch.rand(len(batch), sampling.max_new_tokens, generator=dice).to(device)
        with fabric.autocast():
            responses, response_mask = sample(policy, input_ids, mask, sampling=sampling, uniforms=uniforms)
        answers = policy.write(responses.cpu(), response_mask.cpu())
        # 2. Score them; an answer without an end is penalised.
        scores = reward(batch, answers).to(device)
        moments = updated_moments(moments, scores)
        shaped = shaped_scores(scores, moments if config.normalise_scores else None, config.score_clip)
        ended = (torch.isin(responses, torch.tensor(policy.eos_token_ids, device=device)) & response_mask).any(1)
        shaped = shaped - config.missing_eos_penalty * (~ended)
        # 3. Evaluate the answers under policy and start, and turn scores into advantages.
        input_ids, mask = torch.cat([input_ids, responses], dim=1), torch.cat([mask, response_mask], dim=1)
        rollout = evaluate(
            actor, ref_model, fabric, config, sampling, input_ids, mask, response_mask, shaped, kl_coef=kl_coef
        )
        # 4. Take a few epochs of minibatch steps on the clipped losses, while the policy is near the one that sampled.
        steps: list[dict[str, Tensor]] = []
        for index in minibatches(config, shuffler):
            steps.append(backward(actor, fabric, config, sampling, rollout.rows(index.to(device))))
            if config.update_kl_limit is not None and steps[-1]["approx_kl"] > config.update_kl_limit:
                optimizer.zero_grad()
                break
            fabric.clip_gradients(actor, optimizer, max_norm=config.max_grad_norm, error_if_nonfinite=False)
            optimizer.step()
            optimizer.zero_grad()
        # 5. Steer the penalty, and say what happened.
        metrics = {"update": update + 1, "episodes": (update + 1) * config.batch_size, "kl_coef": kl_coef}
        metrics |= measure(rollout, scores, ended, steps, kl_coef=kl_coef)
        if config.kl_target is not None:
            kl_coef = adapted_kl_coef(kl_coef, metrics["kl"], target=config.kl_target)
        yield Update(metrics, batch, answers, scores.cpu())


def prompt_batches(prompts: Sequence[Prompt], size: int, *, seed: int) -> Iterator[list[Prompt]]:
    """Yield batches for ever: every prompt once in a seeded order, then again in another."""
    rng = random.Random(seed)
    waiting: list[Prompt] = []
    while True:
        while len(waiting) < size:
            waiting += rng.sample(list(prompts), len(prompts))
        yield waiting[:size]
        waiting = waiting[size:]


def batches(index: Tensor, size: int) -> list[Tensor]:
    """Cut an index into pieces of `size`."""
    return list(index.split(size))  # type: ignore[no-untyped-call]


def minibatches(config: PPOConfig, shuffler: torch.Generator) -> Iterator[Tensor]:
    """Yield the rows of every minibatch of an update: each epoch takes each answer once, in an order of its own."""
    for _ in range(config.epochs):
        yield from batches(torch.randperm(config.batch_size, generator=shuffler), config.minibatch_size)


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
    parts: list[Outputs] = []
    refs = []
    for rows in batches(torch.arange(len(mask), device=mask.device), config.pass_size):
        parts.append(actor(input_ids[rows], mask[rows], length, sampling.temperature))
        with fabric.autocast():
            refs.append(reference_logprobs(ref_model, input_ids[rows], mask[rows], length, sampling.temperature))
    logprobs, values, entropy = (torch.cat(list(column)) for column in zip(*parts, strict=True))
    ref_logprobs = torch.cat(refs)
    kl = kl_penalty(logprobs, ref_logprobs, config.kl_estimator)
    rewards = token_rewards(scores, kl, response_mask, kl_coef=kl_coef)
    advantages, returns = gae(rewards, values, response_mask, gamma=config.gamma, lam=config.lam)
    if config.whiten_advantages:
        advantages = whiten(advantages, response_mask)
    return Rollout(input_ids, mask, response_mask, logprobs, ref_logprobs, values, entropy, advantages, returns)


def backward(
    actor: Any,  # noqa: ANN401 - Fabric's wrapper of an ActorCritic
    fabric: Fabric,
    config: PPOConfig,
    sampling: Sampling,
    batch: Rollout,
) -> dict[str, Tensor]:
    """Add up the gradient of one minibatch, pass by pass; gives its losses.

        L = policy loss + vf_coef value loss - entropy_coef mean entropy

    Means are over the minibatch's tokens: a pass weighs as much as it holds of them, so that cutting it changes nothing.
    """
    tokens = batch.response_mask.sum()
    total: dict[str, Tensor] = {}
    for rows in batches(torch.arange(len(batch.mask), device=batch.mask.device), config.pass_size):
        part = batch.rows(rows)
        mask = part.response_mask
        with_entropy = config.entropy_coef > 0
        out = actor(part.input_ids, part.mask, mask.shape[1], sampling.temperature, with_entropy=with_entropy)
        surrogate = policy_loss(out.logprobs, part.logprobs, part.advantages, mask, cliprange=config.cliprange)
        error = value_loss(out.values, part.values, part.returns, mask, cliprange_value=config.cliprange_value)
        loss = surrogate.loss + config.vf_coef * error
        if with_entropy:
            loss = loss - config.entropy_coef * masked_mean(out.entropy, mask)
        if not loss.isfinite():
            raise PPOError(DIVERGED.format("the loss"))
        share = mask.sum() / tokens
        fabric.backward(loss * share)
        parts = {"policy_loss": surrogate.loss, "value_loss": error} | surrogate._asdict()
        for name in ("policy_loss", "value_loss", "clipfrac", "approx_kl"):
            total[name] = total.get(name, torch.zeros_like(loss)).detach() + parts[name].detach() * share
    return total


def measure(
    rollout: Rollout, scores: Tensor, ended: Tensor, steps: list[dict[str, Tensor]], *, kl_coef: float
) -> dict[str, float]:
    """Describe a batch and its update in numbers; kl is in nats a sequence, entropy in nats a token, length in tokens."""
    mask = rollout.response_mask
    kl = ((rollout.logprobs - rollout.ref_logprobs) * mask).sum(1)
    numbers = {
        "score": scores.mean(),
        "kl": kl.mean(),
        "objective": (scores - kl_coef * kl).mean(),
        "length": mask.sum(1).float().mean(),
        "ended": ended.float().mean(),
        "entropy": masked_mean(rollout.entropy, mask),
        "explained_variance": explained_variance(rollout.values, rollout.returns, mask),
    } | {name: torch.stack([step[name] for step in steps]).mean() for name in steps[0]}
    values = {name: float(value) for name, value in numbers.items()} | {"steps": float(len(steps))}
    if not all(math.isfinite(value) for value in values.values()):
        bad = ", ".join(name for name, value in values.items() if not math.isfinite(value))
        raise PPOError(DIVERGED.format(bad))
    return values
