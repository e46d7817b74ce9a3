"""Settings of sampling and of PPO, each documented once, here; the command line makes its options of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from ppo.errors import PPOError


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
    epochs: Annotated[int, "Passes over each batch."] = 4
    learning_rate: Annotated[float, "Peak of AdamW; falls linearly to 0."] = 3e-6
    kl_coef: Annotated[float, "Weight of the KL penalty against the start, reward units a nat."] = 0.05
    gamma: Annotated[float, "Discount a token."] = 1.0
    lam: Annotated[float, "GAE's lambda: bias against variance."] = 0.95
    cliprange: Annotated[float, "How far a token's probability ratio may move in an update."] = 0.2
    cliprange_value: Annotated[float, "How far a value may move in an update."] = 0.2
    vf_coef: Annotated[float, "Weight of the value loss."] = 0.1
    max_grad_norm: Annotated[float, "Gradients are scaled down to this norm."] = 1.0
    missing_eos_penalty: Annotated[float, "Taken off the score of an answer that does not end."] = 1.0
    seed: Annotated[int, "Of prompts, sampling and minibatches."] = 0

    def __post_init__(self) -> None:
        if self.batch_size % self.minibatch_size:
            raise PPOError(
                f"--batch-size {self.batch_size} must be a multiple of --minibatch-size {self.minibatch_size}, so that every "
                "optimiser step sees as many answers"
            )
        if self.episodes < self.batch_size:
            raise PPOError(f"--episodes {self.episodes} is less than one batch (--batch-size {self.batch_size})")
        for name in ("minibatch_size", "epochs", "learning_rate"):
            if getattr(self, name) <= 0:
                raise PPOError(f"--{name.replace('_', '-')} {getattr(self, name)}: expected more than 0")
        if self.kl_coef < 0:
            raise PPOError(f"--kl-coef {self.kl_coef}: expected 0 or more")

    @property
    def updates(self) -> int:
        """How often the policy is updated."""
        return self.episodes // self.batch_size
