"""Where rewards come from: a reward model's folder, or a Python function `module:function`."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from ppo.errors import PPOError
from rm_lightning.scorer import RewardScorer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from lsplugin.preferences import Prompt

    Reward = Callable[[Sequence[Prompt], Sequence[str]], Tensor]


def load_reward(name: str, *, device: str | torch.device = "cpu") -> Reward:
    """Load a reward: a function of prompts and answers that gives one float32 score each, (N,), on the CPU.

    Args:
        name: our rm/ folder, any `AutoModelForSequenceClassification` with one label, or `module:function`, a function that takes
            a list of prompts and a list of answers and gives a list of numbers.
        device: where a model runs.

    Raises:
        PPOError: no such module or function, or it gives something else than one finite number an answer.
        RewardModelError: the folder is no reward model.
    """
    if ":" in name and not Path(name).exists():
        return _checked(_import(name), name)
    return _checked(RewardScorer(name, device=device), name)


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


def _checked(function: Callable[[list[Prompt], list[str]], Sequence[float] | Tensor], name: str) -> Reward:
    def reward(prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        scores = torch.as_tensor(function(list(prompts), list(answers)), dtype=torch.float32)
        if scores.shape != (len(answers),):
            raise PPOError(
                f"reward {name}: expected {len(answers)} numbers, one an answer, got shape {tuple(scores.shape)}"
            )
        if not scores.isfinite().all():
            worst = int((~scores.isfinite()).nonzero()[0])
            raise PPOError(
                f"reward {name}: expected finite numbers, got {scores[worst]} for the answer {answers[worst][:60]!r}"
            )
        return scores

    return reward
