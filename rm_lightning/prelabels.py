"""Tasks of Label Studio -> predictions: what the reward model would answer, in the form that the editor shows.

Predictions have the very form of the pre-labels that `lsplugin push --predictions` imports; names come from the project's config.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from lxml import etree

from lsplugin.dataset import ORDER
from lsplugin.errors import LspluginError
from lsplugin.preferences import check_prompt, kind
from lsplugin.prelabel import PRELABEL, fields_of, prediction
from rm_lightning.candidates import why_unusable
from rm_lightning.errors import RewardModelError
from rm_lightning.scoring import model_digest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from lsplugin.preferences import Prompt
    from rm_lightning.scorer import Precision, RewardScorer

_DIGITS = 12  # of a version: 48 bits of its weights' hash


class Model(NamedTuple):
    """A reward model that is ready to score.

    Attributes:
        folder: where it lies.
        scorer: its scores.
        version: the folder's name and a hash of the weights: the same for the same weights, another for others.
    """

    folder: Path
    scorer: RewardScorer
    version: str


class Config(NamedTuple):
    """A labeling config, read.

    Attributes:
        tree: its XML.
        prompt: the task field of the prompt.
        answers: the task fields of the answers, in the order in which they stand.
    """

    tree: etree._Element
    prompt: str
    answers: list[str]


@dataclass
class Predicted:
    """What became of N tasks.

    Attributes:
        results: N predictions; an empty list for a task that has none, which Label Studio takes for "no prediction".
        refused: the place of every task that cannot be scored -> why.
        withheld: how many tasks are to stay without a pre-label, as their meta says.
    """

    results: list[dict[str, Any] | list[Any]]
    refused: dict[int, str] = field(default_factory=dict)
    withheld: int = 0


def load_model(folder: Path, *, device: str | torch.device, tokens_per_batch: int, precision: Precision) -> Model:
    """Load a folder that `fit` wrote, or any other that scores with one number.

    Raises:
        RewardModelError: there is no such folder, or it holds no reward model.
    """
    if not folder.is_dir():
        raise RewardModelError(f"{folder}: no such folder; `python -m rm_lightning fit --output {folder}` makes it")
    from rm_lightning.scorer import RewardScorer

    scorer = RewardScorer(str(folder), device=device, tokens_per_batch=tokens_per_batch, precision=precision)
    name = folder.resolve().name
    return Model(folder, scorer, f"{name}-{model_digest(str(folder), '*model*')[:_DIGITS]}")


@lru_cache(maxsize=64)
def read_config(text: str) -> Config:
    """Read a labeling config.

    Raises:
        LspluginError: it is no XML, compares less than two answers, or has nothing that scores could fill in.
    """
    try:
        tree = etree.fromstring(text.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
    except (etree.XMLSyntaxError, UnicodeEncodeError) as error:
        raise RewardModelError(f"label_config: expected XML, found an error ({error})") from None
    prompt, answers = fields_of(tree)
    if len(answers) < 2:
        raise RewardModelError(f"label_config: expected two answers or more to compare, found {len(answers)}")
    prediction(tree, [0.0] * len(answers), answers, "")  # raises where there is nothing to fill in
    return Config(tree, prompt, answers)


def predict(model: Model, tasks: Sequence[Any], config: Config) -> Predicted:
    """Score the answers of N tasks and give the predictions; a task that cannot be scored costs the others nothing.

    A task whose meta says that its pre-label is hidden (`lsplugin push --prelabel-share`) gets none.

    Args:
        model: what scores.
        tasks: as Label Studio sends them: {"id", "data", "meta", ...}.
        config: of their project.

    Raises:
        LspluginError: what the model can do nothing with at all, such as conversations without a chat template.
    """
    done = Predicted([[] for _ in tasks])
    asked: dict[int, tuple[Prompt, list[str]]] = {}
    for place, task in enumerate(tasks):
        try:
            asked[place] = _texts(task, config)
        except LspluginError as error:
            done.refused[place] = str(error)
    for place in [place for place in asked if _hidden(tasks[place])]:
        del asked[place]
        done.withheld += 1
    prompts = [prompt for prompt, answers in asked.values() for _ in answers]
    texts = [answer for _, answers in asked.values() for answer in answers]
    attempt = model.scorer.attempt(prompts, texts)
    means = dict(zip(attempt.places, attempt.scores.mean(dim=1).tolist(), strict=True))
    count = len(config.answers)
    for number, place in enumerate(asked):
        own = range(number * count, (number + 1) * count)
        if reason := next((attempt.refused[one] for one in own if one in attempt.refused), None):
            done.refused[place] = f"{_name(tasks[place])}: an answer is {reason}"
            continue
        names = _meta(tasks[place]).get(ORDER)
        called = names if isinstance(names, list) and len(names) == count else config.answers
        done.results[place] = prediction(config.tree, [means[one] for one in own], called, model.version)
    return done


def _texts(task: object, config: Config) -> tuple[Prompt, list[str]]:
    """Give a task's prompt and answers, in the order in which they stand."""
    where = _name(task)
    data = task.get("data") if isinstance(task, dict) else None
    if not isinstance(data, dict):
        found = kind(data) if isinstance(task, dict) else kind(task)
        raise RewardModelError(f"{where}: expected an object with `data`, found {found}")
    prompt = check_prompt(data.get(config.prompt), where=where, name=config.prompt)
    answers = []
    for name in config.answers:
        answer = data.get(name)
        if not isinstance(answer, str):
            raise RewardModelError(f"{where}: expected `{name}` to be text, found {kind(answer)}")
        if reason := why_unusable(prompt, answer):
            raise RewardModelError(f"{where}: {name}: {reason}")
        answers.append(answer)
    return prompt, answers


def _name(task: object) -> str:
    return (
        f"task {task['id']}" if isinstance(task, dict) and isinstance(task.get("id"), int) else "a task without an id"
    )


def _meta(task: dict[str, Any]) -> dict[str, Any]:
    found = task.get("meta")
    return found if isinstance(found, dict) else {}


def _hidden(task: dict[str, Any]) -> bool:
    said = _meta(task).get(PRELABEL)
    return isinstance(said, dict) and said.get("shown") is False
