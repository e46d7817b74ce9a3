"""PPO for language models: the loop.

The maths is in `ppo.core`, sampling in `ppo.sampling`; docs/ppo.md walks through it. No reward model is trained here.
"""

from __future__ import annotations

import copy
import random
import time
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch.nn.functional import pad

from lsplugin.errors import LspluginError
from ppo.actor import ActorCritic
from ppo.core import (
    Moments,
    adapted_kl_coef,
    shaped_scores,
    updated_moments,
)
from ppo.errors import PPOError
from ppo.guards import Guard
from ppo.learning import backward
from ppo.lora import add_adapters
from ppo.processes import check_shares, gather, share
from ppo.rollout import AT_A_LOSS, DIVERGED, batches, describe, evaluate
from ppo.sampling import sample

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from lightning.fabric import Fabric
    from torch import Tensor
    from transformers import PreTrainedModel

    from lsplugin.preferences import Prompt
    from ppo.policy import Policy
    from ppo.reward import Reward
    from ppo.sampling import Sampler
    from ppo.settings import PPOConfig, Sampling


class Update(NamedTuple):
    """What happened in one update.

    Attributes:
        metrics: numbers to log.
        prompts: the batch's prompts.
        answers: what was sampled.
        scores: what the reward gave, (B,).
        judged: what the judge gave, (B,); None where it was not asked.
        seconds: what rollout, scoring and update took.
        warning: what a person should hear of.
    """

    metrics: dict[str, float]
    prompts: list[Prompt]
    answers: list[str]
    scores: Tensor
    judged: Tensor | None
    seconds: dict[str, float]
    warning: str | None


class Trainer:
    """Tunes `policy.model` in place, an update a step.

    Maximises E[r(x, y)] - kl_coef KL(policy || start) by PPO: Ziegler et al. 2019 (arXiv 1909.08593), equation 2.

    Args:
        config: settings.
        sampling: how answers are drawn.
        policy: where to start; it is changed.
        reward: scores of answers.
        prompts: drawn without replacement, over and over.
        fabric: device, precision and processes; launched where there are several.
        judge: scores that the policy is not tuned on; see `ppo.guards`.
        critic: a network of its own for the values, from `ppo.actor.load_critic`; the policy's trunk by default.
        sampler: what samples the answers, from `ppo.samplers.make_sampler`; the decode loop by default.

    Attributes:
        update: how many updates there were.
        ended: why the run ended before its time; None where it did not.
        batch: columns of the last batch: prompt, answer and, where it came to that, score.

    Raises:
        PPOError: no prompts, or batches that the processes cannot share out evenly.
    """

    def __init__(
        self,
        config: PPOConfig,
        sampling: Sampling,
        policy: Policy,
        reward: Reward,
        prompts: Sequence[Prompt],
        fabric: Fabric,
        *,
        judge: Reward | None = None,
        critic: PreTrainedModel | None = None,
        sampler: Sampler = sample,
    ) -> None:
        if not prompts:
            raise PPOError("no prompts to answer: expected one or more")
        check_shares(config, fabric.world_size)
        self.config, self.sampling, self.policy, self.fabric = config, sampling, policy, fabric
        self.reward, self.judge, self.prompts, self.sampler = reward, judge, prompts, sampler
        if config.lora_rank:
            add_adapters(policy.model, config.lora_rank)
            self.ref_model = policy.model  # with its adapters off
        else:
            self.ref_model = fabric.to_device(copy.deepcopy(policy.model).requires_grad_(requires_grad=False)).eval()  # type: ignore[assignment]
        actor = ActorCritic(policy.model, value_init_std=config.value_init_std, critic=critic)
        self.weights = {name: weight for name, weight in actor.named_parameters() if weight.requires_grad}
        head = [weight for weight in actor.value_head.parameters() if weight.requires_grad]
        rest = [weight for weight in self.weights.values() if all(weight is not other for other in head)]
        optimizer = torch.optim.AdamW(
            [{"params": rest, "share": 1.0}, {"params": head, "share": config.value_rate}],
            lr=config.learning_rate, eps=1e-5, weight_decay=0.0, fused=True,
        )  # fmt: skip
        self.actor, self.optimizer = fabric.setup(actor, optimizer)
        self.actor.eval()  # no dropout: it would make the ratio of the first minibatch differ from 1 (Huang et al. 2024)
        self.dice = torch.Generator().manual_seed(config.seed)
        self.shuffler = torch.Generator().manual_seed(config.seed)
        self.stream = prompt_batches(prompts, config.batch_size, seed=config.seed)
        self.update, self.kl_coef, self.moments = 0, config.kl_coef, Moments()
        self.guard = Guard()
        self.ended: str | None = None
        self.kept: tuple[int, dict[str, Tensor]] | None = None  # after how many updates, and the weights
        self.batch: dict[str, Any] = {}

    def step(self) -> Update:
        """Answer the next prompts and learn from the answers.

        Raises:
            PPOError: no answer has any text, or a score or the loss is not finite; `batch` tells more.
        """
        config, device = self.config, self.fabric.device
        for group in self.optimizer.param_groups:
            group["lr"] = group["share"] * config.learning_rate * (1 - self.update / config.updates)
        self.batch = {}
        times = [time.perf_counter()]
        # 1. Sample answers to the next prompts.
        prompts = next(self.stream)
        input_ids, mask, responses, response_mask = self.sample(prompts)
        answers = self.policy.write(responses.cpu(), response_mask.cpu())
        self.batch = {"prompt": prompts, "answer": answers}
        if not any(answers):
            raise PPOError(f"all {len(answers)} answers of update {self.update + 1} are empty; {AT_A_LOSS}")
        times.append(time.perf_counter())
        # 2. Score them; an answer without an end is penalised.
        scores = self.score(self.reward, prompts, answers)
        judge = self.judge if self.update % config.judge_every == 0 else None
        judged = None if judge is None else self.score(judge, prompts, answers)
        self.batch["score"] = scores.tolist()
        self.moments = updated_moments(self.moments, scores)
        shaped = shaped_scores(scores, self.moments if config.normalise_scores else None, config.score_clip)
        ended = (torch.isin(responses, torch.tensor(self.policy.eos_token_ids, device=device)) & response_mask).any(1)
        shaped = shaped - config.missing_eos_penalty * (~ended)
        # 3. Evaluate the answers under policy and start, and turn scores into advantages.
        rollout = evaluate(
            self.actor, self.ref_model, self.fabric, config, self.sampling, input_ids, mask, response_mask, shaped,
            kl_coef=self.kl_coef,
        )  # fmt: skip
        metrics = {
            "update": self.update + 1,
            "episodes": (self.update + 1) * config.batch_size,
            "kl_coef": self.kl_coef,
        }
        metrics |= describe(rollout, scores, judged, ended, kl_coef=self.kl_coef)
        # 4. Keep the policy that wrote them where it is the best so far, and see whether to go on.
        verdict = self.guard.look(config, metrics, scores, judged)
        self.ended = verdict.ended
        if verdict.keep:
            self.kept = self.update, {name: weight.detach().cpu().clone() for name, weight in self.weights.items()}
        times.append(time.perf_counter())
        # 5. Take a few epochs of minibatch steps on the clipped losses, while the policy is near the one that sampled.
        steps: list[dict[str, Tensor]] = []
        for index in minibatches(config, self.shuffler):
            steps.append(backward(self.actor, self.fabric, config, self.sampling, rollout.rows(index.to(device))))
            if config.update_kl_limit is not None and steps[-1]["approx_kl"] > config.update_kl_limit:
                self.optimizer.zero_grad()
                break
            self.fabric.clip_gradients(
                self.actor, self.optimizer, max_norm=config.max_grad_norm, error_if_nonfinite=False
            )
            self.optimizer.step()
            self.optimizer.zero_grad()
        # 6. Steer the penalty, and say what happened.
        metrics |= {name: float(torch.stack([step[name] for step in steps]).mean()) for name in steps[0]}
        metrics["steps"] = len(steps)
        if config.kl_target is not None:
            self.kl_coef = adapted_kl_coef(self.kl_coef, metrics["kl"], target=config.kl_target)
        self.update += 1
        times.append(time.perf_counter())
        seconds = {name: times[n + 1] - times[n] for n, name in enumerate(("rollout", "scoring", "learning"))}
        return Update(metrics, prompts, answers, scores.cpu(), judged, seconds, verdict.warning)

    def sample(self, prompts: list[Prompt]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Answer B prompts, each process its share: (input_ids, mask), both (B, P + T), (responses, mask), both (B, T)."""
        room, fabric = self.sampling.max_new_tokens, self.fabric
        input_ids, mask = (tensor.to(fabric.device) for tensor in self.policy.read(prompts, room=room))
        uniforms = torch.rand(len(prompts), room, generator=self.dice).to(fabric.device)
        own = share(len(prompts), fabric)
        with fabric.autocast():
            drawn = self.sampler(self.policy, input_ids[own], mask[own], sampling=self.sampling, uniforms=uniforms[own])
        spare = (0, room - drawn[0].shape[1])  # as wide in every process
        responses = gather(pad(drawn[0], spare, value=self.policy.pad_token_id), fabric)
        response_mask = gather(pad(drawn[1], spare).long(), fabric).bool()
        longest = int(response_mask.sum(1).max())
        responses, response_mask = responses[:, :longest], response_mask[:, :longest]
        return torch.cat([input_ids, responses], 1), torch.cat([mask, response_mask], 1), responses, response_mask

    def score(self, reward: Reward, prompts: list[Prompt], answers: list[str]) -> Tensor:
        """Score B answers, each process its share: (B,). Where one process has no scores, all of them end."""
        own = share(len(prompts), self.fabric)
        failure = DIVERGED.format("a score, here or in another process,")
        try:
            scores = reward(prompts[own], answers[own])
        except LspluginError as error:
            scores, failure = torch.full((len(answers[own]),), torch.nan), str(error)
        scores = gather(scores.to(self.fabric.device), self.fabric)
        if scores.isnan().any():
            raise PPOError(failure)
        return scores

    def choose(self) -> int:
        """Put the policy in place that is to be exported, the best one where a guard kept one; after how many updates it was."""
        if self.kept is None or (self.ended is None and self.guard.best is None):
            return self.update
        update, weights = self.kept
        self._load(weights)
        return update

    def state_dict(self) -> dict[str, Any]:
        """Give all that a run needs to go on exactly; tensors and plain values, not copied."""
        return {
            "weights": {name: weight.detach() for name, weight in self.weights.items()},
            "optimizer": self.optimizer.state_dict(),
            "dice": self.dice.get_state(),
            "shuffler": self.shuffler.get_state(),
            "update": self.update,
            "kl_coef": self.kl_coef,
            "moments": tuple(self.moments),
            "guard": {name: tuple(v) if isinstance(v, tuple) else v for name, v in vars(self.guard).items()},
            "kept": self.kept,
            "ended": self.ended,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where a run with the same settings, policy and prompts was."""
        self._load(state["weights"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.dice.set_state(state["dice"])
        self.shuffler.set_state(state["shuffler"])
        self.update, self.kl_coef, self.moments = state["update"], state["kl_coef"], Moments(*state["moments"])
        self.guard, self.kept, self.ended = Guard(**state["guard"]), state["kept"], state["ended"]
        batches = prompt_batches(self.prompts, self.config.batch_size, seed=self.config.seed)
        self.stream = islice(batches, self.update, None)

    @torch.no_grad()
    def _load(self, weights: dict[str, Tensor]) -> None:
        for name, weight in self.weights.items():
            weight.copy_(weights[name])


def train(
    config: PPOConfig, sampling: Sampling, policy: Policy, reward: Reward, prompts: Sequence[Prompt], fabric: Fabric
) -> Iterator[Update]:
    """Tune `policy.model` in place; yields after every update. The arguments are those of `Trainer`."""
    trainer = Trainer(config, sampling, policy, reward, prompts, fabric)
    while trainer.update < config.updates and trainer.ended is None:
        yield trainer.step()


def prompt_batches(prompts: Sequence[Prompt], size: int, *, seed: int) -> Iterator[list[Prompt]]:
    """Yield batches for ever: every prompt once in a seeded order, then again in another."""
    rng = random.Random(seed)
    waiting: list[Prompt] = []
    while True:
        while len(waiting) < size:
            waiting += rng.sample(list(prompts), len(prompts))
        yield waiting[:size]
        waiting = waiting[size:]


def minibatches(config: PPOConfig, shuffler: torch.Generator) -> Iterator[Tensor]:
    """Yield the rows of every minibatch of an update: each epoch takes each answer once, in an order of its own."""
    for _ in range(config.epochs):
        yield from batches(torch.randperm(config.batch_size, generator=shuffler), config.minibatch_size)
