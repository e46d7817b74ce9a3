"""Settings of sampling and of PPO, each documented once, here; the command line makes its options of them."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from typing import Annotated

from ppo.errors import PPOError

KL_ESTIMATORS = ("k1", "k2", "k3")
"""Of Schulman 2020; see `ppo.core.kl_penalty`."""

ROLLOUTS = ("own", "static", "vllm")
"""What can sample; see `ppo.samplers`."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are drawn.

    Raises:
        PPOError: for a value that cannot be.
    """

    max_new_tokens: Annotated[int, "Most tokens of an answer."] = 48
    temperature: Annotated[float, "Divides the logits; 1 samples from the model itself."] = 1.0
    top_k: Annotated[int, "Draw from the k likeliest tokens; 0 from all."] = 0
    top_p: Annotated[float, "Draw from the likeliest tokens that together reach p; 1 from all."] = 1.0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise PPOError(f"--max-new-tokens {self.max_new_tokens}: expected 1 or more")
        if self.temperature <= 0:
            raise PPOError(f"--temperature {self.temperature}: expected a number above 0")
        if self.top_k < 0 or not 0 < self.top_p <= 1:
            raise PPOError(
                f"--top-k {self.top_k}, --top-p {self.top_p}: expected k of 0 or more and p above 0, at most 1"
            )


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Settings of a run. Most defaults are those of Huang et al. 2024 (arXiv 2403.17031).

    Raises:
        PPOError: for values that do not fit together.
    """

    episodes: Annotated[int, "Answers sampled in all."] = 4096
    batch_size: Annotated[int, "Answers sampled between two updates of the policy."] = 64
    minibatch_size: Annotated[int, "Answers in one optimiser step."] = 16
    microbatch_size: Annotated[
        int | None, "Answers in one pass; gradients of a minibatch's passes add up. The whole minibatch by default."
    ] = None
    epochs: Annotated[int, "Passes over each batch."] = 4
    learning_rate: Annotated[float, "Peak of AdamW; falls linearly to 0."] = 3e-6
    kl_coef: Annotated[float, "Weight of the KL penalty against the start, reward units a nat."] = 0.05
    kl_target: Annotated[
        float | None, "Steer kl_coef towards this KL, nats a sequence (Ziegler et al. 2019); fixed by default."
    ] = None
    kl_estimator: Annotated[str, "Of the penalty: k1, k2 or k3 (Schulman 2020); only k1 has the KL's gradient."] = "k1"
    update_kl_limit: Annotated[
        float | None,
        "End an update once the policy is this far from where it began, nats a token; no limit by default.",
    ] = None
    kl_limit: Annotated[
        float | None, "End the run where the policy is further from the start, nats a sequence; no limit by default."
    ] = None
    judge_every: Annotated[int, "Updates from one batch that the judge scores to the next."] = 1
    judge_window: Annotated[int, "Judged batches that are averaged to one of the judge's scores."] = 5
    judge_patience: Annotated[
        int, "End the run after so many such scores in a row that fell while the reward rose."
    ] = 2
    lora_rank: Annotated[int, "Train adapters of this rank (LoRA) and the value head alone; 0 trains the whole."] = 0
    gamma: Annotated[float, "Discount a token."] = 1.0
    lam: Annotated[float, "GAE's lambda: bias against variance."] = 0.95
    whiten_advantages: Annotated[bool, "Scale a batch's advantages to mean 0 and variance 1."] = True
    cliprange: Annotated[float, "How far a token's probability ratio may move in an update."] = 0.2
    cliprange_value: Annotated[
        float | None, "How far a value may move in an update; no limit by default (Andrychowicz et al. 2020)."
    ] = None
    value_rate: Annotated[float, "Learning rate of the value head, in learning rates: it starts from nothing."] = 10.0
    vf_coef: Annotated[float, "Weight of the value loss."] = 0.1
    value_init_std: Annotated[float, "Spread of the value head's first weights; at 0 the first values are 0."] = 0.0
    entropy_coef: Annotated[float, "Weight of a bonus for entropy."] = 0.0
    max_grad_norm: Annotated[float, "Gradients are scaled down to this norm."] = 1.0
    normalise_scores: Annotated[bool, "Subtract the mean of all scores so far and divide by their deviation."] = False
    score_clip: Annotated[float | None, "Scores are clipped to this size, after any normalising; not by default."] = (
        None
    )
    missing_eos_penalty: Annotated[float, "Taken off the score of an answer that does not end."] = 1.0
    seed: Annotated[int, "Of prompts, sampling and minibatches."] = 0

    def __post_init__(self) -> None:
        _check_multiple("batch_size", self.batch_size, "minibatch_size", self.minibatch_size)
        if self.microbatch_size is not None:
            _check_multiple("minibatch_size", self.minibatch_size, "microbatch_size", self.microbatch_size)
        if self.episodes < self.batch_size:
            raise PPOError(f"--episodes {self.episodes} is less than one batch (--batch-size {self.batch_size})")
        positive = ("epochs", "learning_rate", "value_rate", "kl_target", "update_kl_limit", "kl_limit", "score_clip")
        for name in (*positive, "cliprange_value", "judge_every", "judge_window", "judge_patience"):
            value = getattr(self, name)
            if value is not None and value <= 0:
                raise PPOError(f"{_flag(name)} {value}: expected more than 0")
        for name in ("kl_coef", "entropy_coef", "value_init_std", "missing_eos_penalty", "lora_rank"):
            if getattr(self, name) < 0:
                raise PPOError(f"{_flag(name)} {getattr(self, name)}: expected 0 or more")
        if self.kl_target is not None and self.kl_coef == 0:
            raise PPOError(
                f"--kl-target {self.kl_target} steers --kl-coef by factors, so it cannot start at 0; give more"
            )
        if self.kl_estimator not in KL_ESTIMATORS:
            raise PPOError(f"--kl-estimator {self.kl_estimator}: expected one of {', '.join(KL_ESTIMATORS)}")

    @property
    def updates(self) -> int:
        """How often the policy is updated."""
        return self.episodes // self.batch_size

    @property
    def pass_size(self) -> int:
        """Answers in one pass through the network."""
        return self.microbatch_size or self.minibatch_size


@dataclass(frozen=True, kw_only=True)
class Rollouts:
    """What samples the answers of a run; see `ppo.samplers`.

    Raises:
        PPOError: for a value that cannot be, or a package that is not there.
    """

    rollout: Annotated[
        str,
        "What samples: own, the decode loop of this package; static, the same with a cache of one size, compiled, "
        "CUDA graphs on a GPU; vllm, the package vLLM.",
    ] = "own"
    vllm_memory: Annotated[float, "Share of a GPU's memory that vLLM takes for itself."] = 0.3

    def __post_init__(self) -> None:
        if self.rollout not in ROLLOUTS:
            raise PPOError(f"--rollout {self.rollout}: expected one of {', '.join(ROLLOUTS)}")
        if not 0 < self.vllm_memory < 1:
            raise PPOError(f"--vllm-memory {self.vllm_memory}: expected a share above 0 and below 1")
        if self.rollout == "vllm":
            _check_package("--rollout vllm", "vllm")


@dataclass(frozen=True, kw_only=True)
class Keeping:
    """What a run keeps, and what of an earlier run's it may replace; the result does not depend on it.

    Raises:
        PPOError: for a value that cannot be.
    """

    save_every: Annotated[int, "Updates from one checkpoint to the next, from which the same command goes on."] = 20
    fresh: Annotated[bool, "Begin anew, even if an interrupted run could go on."] = False
    overwrite: Annotated[bool, "Replace another run's result in --output."] = False
    wandb: Annotated[str | None, "Weights & Biases project to log to, beside TensorBoard and CSV."] = None

    def __post_init__(self) -> None:
        if self.save_every < 1:
            raise PPOError(f"--save-every {self.save_every}: expected more than 0")
        if self.wandb is not None:
            _check_package("--wandb", "wandb")


def _check_package(option: str, name: str) -> None:
    if find_spec(name) is None:
        raise PPOError(f"{option} needs the package {name}: pip install 'label-studio-rlhf[{name}]'")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _check_multiple(large: str, size: int, small: str, part: int) -> None:
    if part < 1:
        raise PPOError(f"{_flag(small)} {part}: expected more than 0")
    if size % part:
        raise PPOError(
            f"{_flag(large)} {size} must be a multiple of {_flag(small)} {part}, so that every piece holds as many answers"
        )
