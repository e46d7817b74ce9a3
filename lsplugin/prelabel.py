"""Scores of answers -> pre-labels, in the form that the editor shows and keeps.

They come with their tasks: imported on their own, Label Studio drops some without a word. Whether a task shows its pre-label is
drawn and recorded either way, so that agreement with shown and with hidden ones can be compared.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from lsplugin.answers import MARKDOWN_SUFFIX
from lsplugin.controls import STRENGTHS, VERDICT
from lsplugin.dataset import ORDER, Task
from lsplugin.errors import LspluginError
from lsplugin.files import as_path, read_jsonl
from lsplugin.markup import OBJECT_TAGS
from lsplugin.plan import draw
from lsplugin.preferences import check_prompt, kind, prompt_text
from lsplugin.prepare import answer_fields, displayed
from lsplugin.template import CONTROL, PROMPT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lxml import etree

    from lsplugin.files import PathLike

PRELABEL = "prelabel"
"""Where in a task's meta it stands what a model prefers, and whether people see it."""

_STEPS = (0.5, 0.7, 0.9)
"""From which probability on an answer is called slightly, clearly and much better."""

Scores = dict[tuple[str, str], float]


def read_scores(path: PathLike) -> tuple[Scores, str]:
    """Read lines such as {"prompt": ..., "answer": ..., "score": 1.5, "model": "rm"}: (prompt, answer) -> score, and the model.

    Raises:
        LspluginError: a line that is none, with its number and field.
    """
    scores: Scores = {}
    model = as_path(path).stem
    for number, row in read_jsonl(path):
        where = f"{path}, line {number}"
        if not isinstance(row, dict):
            raise LspluginError(f"{where}: expected an object with prompt, answer and score, found {kind(row)}")
        prompt, answer, score = check_prompt(row.get("prompt"), where=where), row.get("answer"), row.get("score")
        if not isinstance(answer, str):
            raise LspluginError(f"{where}: expected `answer` to be text, found {kind(answer)}")
        if not isinstance(score, int | float) or isinstance(score, bool) or not math.isfinite(score):
            raise LspluginError(f"{where}: expected `score` to be a number, found {kind(score)}")
        scores[prompt_text(prompt), answer] = float(score)
        model = str(row.get("model", model))
    if not scores:
        raise LspluginError(
            f'{path}: no scores in it; expected lines such as {{"prompt": ..., "answer": ..., "score": 1.5}}'
        )
    return scores, model


def prelabelled(
    tasks: Sequence[Task], config: etree._Element, path: PathLike, *, share: float, seed: int
) -> list[Task]:
    """Add pre-labels to the tasks whose answers all have a score.

    Args:
        tasks: planned ones, answers in their places.
        config: the config's tree.
        path: the file of scores.
        share: of the tasks that show it.
        seed: another seed draws other tasks.

    Raises:
        LspluginError: the config has nothing that a score could fill in, or no task has scores.
    """
    scores, model = read_scores(path)
    asked, fields = fields_of(config)
    made = []
    found = 0
    for task in tasks:
        prompt = prompt_text(task.data.get(asked) or "")
        own = [scores.get((prompt, str(task.data.get(name)))) for name in fields]
        known = [score for score in own if score is not None]
        if len(known) < len(fields):
            made.append(task)
            continue
        found += 1
        shown = draw(seed, PRELABEL, task.key) < share
        names = task.meta.get(ORDER) or fields
        predicted = prediction(config, known, names, model)
        said = {
            "shown": shown,
            "answer": names[known.index(max(known))],
            "probability": predicted["score"],
            "model": model,
        }
        made.append(replace(task, meta=task.meta | {PRELABEL: said}, predictions=(predicted,) if shown else ()))
    if not found:
        raise LspluginError(
            f"{path}: none of its prompts and answers is in the dataset; score this dataset's own answers"
        )
    return made


def fields_of(config: etree._Element) -> tuple[str, list[str]]:
    """Name the task fields of a config's prompt and of its answers, the latter in the order in which they stand."""
    fields = answer_fields(config)
    return next(
        (name for name in displayed(config) if name.removesuffix(MARKDOWN_SUFFIX) not in fields), PROMPT
    ), fields


def prediction(config: etree._Element, scores: Sequence[float], names: Sequence[str], model: str) -> dict[str, Any]:
    """Give what Label Studio takes as a task's prediction: a pre-label, and how sure the model is of it.

    Its `score` is the probability that the best answer is better than the second best, 0.5 to 1: the tasks with the lowest are
    those that the model doubts most.

    Args:
        config: the config's tree.
        scores: of the answers, two or more, in the order in which they stand.
        names: what the items of a ranking are called, in the same order.
        model: what made the scores; people see it beside the pre-label.

    Raises:
        LspluginError: the config has nothing that scores could fill in.
    """
    first, second = sorted(scores, reverse=True)[:2]
    probability = _wins(first, second)  # 1 at most, as Label Studio asks of a score
    result = prelabel(config, scores, probability, names)
    return {"model_version": model, "score": round(probability, 6), "result": result}


def _wins(score: float, other: float) -> float:
    """Give the probability that the answer of the first score is the better one (Bradley and Terry 1952)."""
    return 1 / (1 + math.exp(min(other - score, 700.0)))  # exp overflows above 709


def prelabel(
    config: etree._Element, scores: Sequence[float], probability: float, names: Sequence[str]
) -> list[dict[str, Any]]:
    """Give the result that prefers the answers by their scores.

    Args:
        config: the config's tree.
        scores: of the answers, in the order in which they stand.
        probability: that the best is better than the second best.
        names: what the items of a ranking are called, in the same order.
    """
    strength = list(STRENGTHS)[sum(probability >= step for step in _STEPS[1:])]
    side = "left" if scores[0] >= scores[1] else "right"
    compared, scale = config.find(".//Pairwise"), config.find(f".//Choices[@name='{CONTROL}']")
    ranker = config.find(".//Ranker")
    if compared is not None:
        target = compared.get("toName", "").split(",")[0]
        clicked = _result(compared, "pairwise", {"selected": side}, target=target)
        return [clicked, *_choice(config, VERDICT, ["better", strength])]
    if scale is not None:
        return _choice(config, CONTROL, [f"{side}-{strength}"])
    if ranker is not None:
        order = _tiers(ranker, scores, names)
        return [_result(ranker, "ranker", {"ranker": order}), *_choice(config, VERDICT, ["ranked"])]
    return _stars(config, scores)


def _tiers(ranker: etree._Element, scores: Sequence[float], names: Sequence[str]) -> Mapping[str, list[str]]:
    """Put one answer in each tier, the best into the first; those for which there is no tier of their own share the last."""
    tiers = [bucket.get("name", "") for bucket in ranker.iter("Bucket")]
    ordered = [names[place] for place in sorted(range(len(scores)), key=lambda place: -scores[place])]
    if not tiers:
        return {"rank": ordered}
    filled: dict[str, list[str]] = {"_": [], **{tier: [] for tier in tiers}}
    for place, name in enumerate(ordered):
        filled[tiers[min(place, len(tiers) - 1)]].append(name)
    return filled


def _stars(config: etree._Element, scores: Sequence[float]) -> list[dict[str, Any]]:
    """Rate each answer by how probably it is better than the others: stars tell the order, as a score has no scale of its own.

    Answer i of n gets 1 + (most - 1) sum_{j != i} P(i better than j) / (n - 1) stars, rounded.
    """
    shown = {element.get("name", ""): element.get("value", "") for element in config.iter(*OBJECT_TAGS)}
    ratings: dict[str, list[etree._Element]] = {}
    for rating in config.iter("Rating"):
        field = shown.get(rating.get("toName", ""), "").removeprefix("$").removesuffix(MARKDOWN_SUFFIX)
        ratings.setdefault(field, []).append(rating)
    own = [ratings.get(field, []) for field in answer_fields(config)]
    if not own or any(len(several) != 1 for several in own):
        raise LspluginError(
            "scores cannot fill in this config: it has no Pairwise, scale or Ranker, and not one Rating for each answer (a score "
            "does not say how many stars each of several criteria gets)"
        )
    result = []
    for place, (rating,) in enumerate(own):
        others = [_wins(scores[place], score) for other, score in enumerate(scores) if other != place]
        most = int(rating.get("maxRating", 5))
        value = {"rating": 1 + round((most - 1) * sum(others) / len(others))}
        result.append(_result(rating, "rating", value))
    return result


def _choice(config: etree._Element, name: str, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Choose the first of these that the control offers; nothing where there is no such control."""
    control = config.find(f".//Choices[@name='{name}']")
    if control is None:
        return []
    offered = [choice.get("alias") or choice.get("value") for choice in control.iter("Choice")]
    return [_result(control, "choices", {"choices": [value]}) for value in wanted if value in offered][:1]


def _result(control: etree._Element, kind_: str, value: dict[str, Any], *, target: str | None = None) -> dict[str, Any]:
    to_name = target or control.get("toName", "")
    return {"from_name": control.get("name", ""), "to_name": to_name, "type": kind_, "value": value}
