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

from ppo.core import explained_variance, gae, masked_mean, policy_loss, token_rewards, value_loss, whiten
from ppo.errors import PPOError
from ppo.policy import ActorCritic, Policy, reference_logprobs
from ppo.sampling import sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightning.fabric import Fabric
    from torch import Tensor

    from lsplugin.preferences import Prompt
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
    | advantages | (B, T) | whitened |
    | returns | (B, T) | |
    | scores | (B,) | as the reward gave them |
    """

    input_ids: Tensor
    mask: Tensor
    response_mask: Tensor
    logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor
    advantages: Tensor
    returns: Tensor
    scores: Tensor

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
    ref_model = fabric.to_device(copy.deepcopy(policy.model).requires_grad_(requires_grad=False))
    actor = ActorCritic(policy.model)
    optimizer = torch.optim.AdamW(actor.parameters(), lr=config.learning_rate, eps=1e-5, weight_decay=0.0)
    actor, optimizer = fabric.setup(actor, optimizer)
    generator = torch.Generator(device).manual_seed(config.seed)
    shuffler = torch.Generator().manual_seed(config.seed)
    stream = prompt_batches(prompts, config.batch_size, seed=config.seed)
    for update in range(config.updates):
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 - update / config.updates)
        # 1. Sample answers to the next prompts.
        batch = next(stream)
        input_ids, mask = (tensor.to(device) for tensor in policy.read(batch, room=sampling.max_new_tokens))
        with fabric.autocast():
            responses, response_mask = sample(policy, input_ids, mask, sampling=sampling, generator=generator)
        answers = policy.write(responses.cpu(), response_mask.cpu())
        # 2. Score them; an answer without an end is penalised.
        scores = reward(batch, answers).to(device)
        ended = torch.isin(responses[response_mask], torch.tensor(policy.eos_token_ids, device=device))
        ended_rows = torch.zeros_like(response_mask).masked_scatter(response_mask, ended).any(1)
        penalised = scores - config.missing_eos_penalty * (~ended_rows)
        # 3. Evaluate the answers under policy and start; 4. turn scores into advantages.
        with torch.no_grad():
            rollout = _evaluate(
                actor,
                ref_model,
                fabric,
                config,
                sampling,
                (input_ids, mask),
                (responses, response_mask),
                (scores, penalised),
            )
        # 5. Take a few epochs of minibatch steps on the clipped losses.
        steps = [
            _step(actor, optimizer, fabric, config, sampling, rollout.rows(index.to(device)))
            for _ in range(config.epochs)
            for index in batches(torch.randperm(config.batch_size, generator=shuffler), config.minibatch_size)
        ]
        metrics = _metrics(config, rollout, steps, ended_rows) | {
            "update": update + 1,
            "episodes": (update + 1) * config.batch_size,
        }
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


def _evaluate(
    actor: Any,  # noqa: ANN401 - Fabric's wrapper of an ActorCritic
    ref_model: Any,  # noqa: ANN401
    fabric: Fabric,
    config: PPOConfig,
    sampling: Sampling,
    prompts: tuple[Tensor, Tensor],
    answers: tuple[Tensor, Tensor],
    scores: tuple[Tensor, Tensor],
) -> Rollout:
    """Compute what an update needs of a batch: log-probabilities, values, rewards, advantages."""
    input_ids, mask = torch.cat([prompts[0], answers[0]], dim=1), torch.cat([prompts[1], answers[1]], dim=1)
    response_mask = answers[1]
    length = response_mask.shape[1]
    parts, refs = [], []
    for rows in batches(torch.arange(len(mask), device=mask.device), config.minibatch_size):
        parts.append(actor(input_ids[rows], mask[rows], length, sampling.temperature))
        with fabric.autocast():
            refs.append(reference_logprobs(ref_model, input_ids[rows], mask[rows], length, sampling.temperature))
    logprobs = torch.cat([part.logprobs for part in parts])
    values = torch.cat([part.values for part in parts])
    ref_logprobs = torch.cat(refs)
    rewards = token_rewards(scores[1], logprobs - ref_logprobs, response_mask, kl_coef=config.kl_coef)
    advantages, returns = gae(rewards, values, response_mask, gamma=config.gamma, lam=config.lam)
    advantages = whiten(advantages, response_mask)
    return Rollout(input_ids, mask, response_mask, logprobs, ref_logprobs, values, advantages, returns, scores[0])


def _step(
    actor: Any,  # noqa: ANN401 - Fabric's wrapper of an ActorCritic
    optimizer: Any,  # noqa: ANN401
    fabric: Fabric,
    config: PPOConfig,
    sampling: Sampling,
    batch: Rollout,
) -> dict[str, Tensor]:
    """Take one optimiser step on one minibatch."""
    mask = batch.response_mask
    out = actor(batch.input_ids, batch.mask, mask.shape[1], sampling.temperature)
    surrogate = policy_loss(out.logprobs, batch.logprobs, batch.advantages, mask, cliprange=config.cliprange)
    error = value_loss(out.values, batch.values, batch.returns, mask, cliprange_value=config.cliprange_value)
    loss = surrogate.loss + config.vf_coef * error
    if not loss.isfinite():
        raise PPOError(DIVERGED.format("the loss"))
    fabric.backward(loss)
    fabric.clip_gradients(actor, optimizer, max_norm=config.max_grad_norm, error_if_nonfinite=False)
    optimizer.step()
    optimizer.zero_grad()
    return {
        "policy_loss": surrogate.loss.detach(),
        "value_loss": error.detach(),
        "clipfrac": surrogate.clipfrac,
        "approx_kl": surrogate.approx_kl,
        "entropy": masked_mean(out.entropy, mask).detach(),
    }


def _metrics(config: PPOConfig, rollout: Rollout, steps: list[dict[str, Tensor]], ended: Tensor) -> dict[str, float]:
    """Describe a batch and its update in numbers; kl is in nats a sequence, length in tokens."""
    mask = rollout.response_mask
    kl = ((rollout.logprobs - rollout.ref_logprobs) * mask).sum(1)
    numbers = {
        "score": rollout.scores.mean(),
        "kl": kl.mean(),
        "objective": (rollout.scores - config.kl_coef * kl).mean(),
        "length": mask.sum(1).float().mean(),
        "ended": ended.float().mean(),
        "explained_variance": explained_variance(rollout.values, rollout.returns, mask),
    } | {name: torch.stack([step[name] for step in steps]).mean() for name in steps[0]}
    values = {name: float(value) for name, value in numbers.items()}
    if not all(math.isfinite(value) for value in values.values()):
        bad = ", ".join(name for name, value in values.items() if not math.isfinite(value))
        raise PPOError(DIVERGED.format(bad))
    return values
