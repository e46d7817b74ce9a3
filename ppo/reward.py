"""Where rewards come from: reward models' folders, or Python functions `module:function`."""

from __future__ import annotations

import importlib
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ppo.errors import PPOError
from rm_lightning.scorer import RewardScorer
from rm_lightning.scoring import model_digest
from rm_lightning.sources import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from lsplugin.preferences import Prompt

    Reward = Callable[[Sequence[Prompt], Sequence[str]], Tensor]

AGGREGATES = ("mean", "min", "lcb")
"""See `aggregated`."""


def load_reward(names: str | Sequence[str], *, aggregate: str = "mean", device: str | torch.device = "cpu") -> Reward:
    """Load a reward: a function of prompts and answers that gives one float32 score each, (N,), on the CPU.

    Args:
        names: one or several of: our rm/ folder, whose every head counts; any `AutoModelForSequenceClassification` with one
            label; `module:function`, a function that takes a list of prompts and a list of answers and gives a list of numbers.
        aggregate: how several scores of an answer become one; see `aggregated`.
        device: where a model runs.

    Raises:
        PPOError: no such module or function, it gives something else than one finite number an answer, or there is nothing to
            aggregate.
        RewardModelError: a folder is no reward model.
    """
    several = [names] if isinstance(names, str) else list(names)
    if aggregate not in AGGREGATES:
        raise PPOError(f"--reward-aggregate {aggregate}: expected one of {', '.join(AGGREGATES)}")
    members = Members(several, device=device)
    if aggregate != "mean" and members.count < 2:
        raise PPOError(
            f"--reward-aggregate {aggregate}: expected several reward models, or one of several heads; "
            f"{', '.join(several)} gives one score an answer"
        )
    return lambda prompts, answers: aggregated(members(prompts, answers), aggregate)


class Members:
    """Rewards as a function of N prompts and N answers that gives each member's score, (N, K), float32, on the CPU.

    Args:
        names: see `load_reward`; every head of a folder is a member, every function is one.
        device: where models run.

    Attributes:
        count: K.

    Raises:
        PPOError, RewardModelError: see `load_reward`.
    """

    def __init__(self, names: Sequence[str], *, device: str | torch.device = "cpu") -> None:
        self._parts = [_Part(name, device) for name in names]
        self.count = sum(part.members for part in self._parts)

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        """Score each answer by every member."""
        return torch.cat([part(prompts, answers) for part in self._parts], dim=1)


def aggregated(scores: Tensor, how: str) -> Tensor:
    """Make one score of those of an ensemble: (N, K) -> (N,).

    min is the worst case, lcb = mean - deviation. Source: Coste et al. 2023 (arXiv 2310.02743), section 3, worst-case and
    uncertainty-weighted optimisation; they subtract the variance, the deviation has the scores' own unit.
    """
    if how == "min":
        return scores.amin(1)
    mean = scores.mean(1)
    return mean - scores.std(1, correction=0) if how == "lcb" else mean


def content_of(name: str) -> str:
    """Give a digest of a reward's files, the same for the same reward wherever it lies; call it when the reward is loaded."""
    if not _is_function(name):
        return model_digest(name)
    source = inspect.getsourcefile(_import(name))
    return f"{name.partition(':')[2]} {fingerprint([source]) if source else ''}"


class _Part:
    """One name's scores: (N, members)."""

    def __init__(self, name: str, device: str | torch.device) -> None:
        self.name, self.members = name, 1
        self._function: Callable[[list[Prompt], list[str]], Sequence[float] | Tensor]
        if _is_function(name):
            self._function = _import(name)
        else:
            scorer = RewardScorer(name, device=device)
            self._function, self.members = scorer.all, len(scorer.members)

    def __call__(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        scores = torch.as_tensor(self._function(list(prompts), list(answers)), dtype=torch.float32)
        if len(scores) != len(answers) or scores.numel() != len(answers) * self.members:
            raise PPOError(
                f"reward {self.name}: expected {len(answers)} numbers, one an answer, got shape {tuple(scores.shape)}"
            )
        scores = scores.reshape(len(answers), self.members).cpu()
        if not scores.isfinite().all():
            worst = int((~scores.isfinite()).any(1).nonzero()[0])
            bad = next(score for score in scores[worst].tolist() if score - score != 0)
            raise PPOError(
                f"reward {self.name}: expected finite numbers, got {bad} for the answer {answers[worst][:60]!r}"
            )
        return scores


def _is_function(name: str) -> bool:
    return ":" in name and not Path(name).exists()


def _import(name: str) -> Callable[[list[Prompt], list[str]], Sequence[float]]:
    module_name, _, function_name = name.partition(":")
    if str(Path.cwd()) not in sys.path:  # a file beside the user's other files
        sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise PPOError(f"--reward {name}: there is no module {error.name} here or installed") from None
    function = getattr(module, function_name, None)
    if not callable(function):
        raise PPOError(f"--reward {name}: {module_name} has no function {function_name}")
    return function  # type: ignore[no-any-return]
