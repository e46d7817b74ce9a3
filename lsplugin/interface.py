"""What a project shows and what compares it: read from its config, not guessed from fixed names."""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - a dataclass's field
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from lxml import etree

from lsplugin.answers import MARKDOWN_SUFFIX
from lsplugin.errors import LspluginError
from lsplugin.markup import OBJECT_TAGS
from lsplugin.prepare import answer_fields, displayed
from lsplugin.template import CONTROL, PROMPT

CONTROL_TAGS = ("Pairwise", "Choices", "Ranker", "Rating", "TextArea")
"""Tags whose results say something about answers."""


@dataclass(frozen=True)
class Interface:
    """Which task fields hold the prompt and the answers, and which controls say something about them.

    Attributes:
        prompt: name of the prompt's field.
        answers: the fields of the answers, in the order in which they stand (for Pairwise: in the order of its toName); None
            takes answer1, answer2, ... of each task.
        control: name of the Pairwise, scale or Ranker; None takes whichever a task's results hold.
        items: the field of the list that a Ranker sorts.
        tiers: names of the Ranker's buckets, best first; None takes tier1, tier2, ...
        ratings: name of each Rating -> name of the field that it rates; None takes every Rating named CRITERION_answerN.
        most_stars: how many stars a Rating offers.
        controls: name of every control -> its tag; None takes those that our templates have.
        lists: the fields that hold lists (messages, items), which a CSV keeps as text.
    """

    prompt: str = PROMPT
    answers: tuple[str, ...] | None = None
    control: str | None = None
    items: str = "items"
    tiers: tuple[str, ...] | None = None
    ratings: Mapping[str, str] | None = field(default=None)
    most_stars: int = 5
    controls: Mapping[str, str] | None = field(default=None)
    lists: tuple[str, ...] = ("items", "prompt")

    @classmethod
    def from_config(cls, config: str) -> Interface:
        """Read the names out of a labeling config.

        Raises:
            LspluginError: the config compares nothing, or shows no prompt.
        """
        root = etree.fromstring(config.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
        answers = tuple(answer_fields(root))
        control = _control(root)
        ratings = _ratings(root)
        if control is None and not ratings:
            raise LspluginError("this config has no <Pairwise>, <Ranker>, <Rating> or scale, so it makes no pairs")
        if control is not None and control.tag == "Pairwise" and len(answers) != 2:
            raise LspluginError("this config's <Pairwise> does not name two objects: see lsplugin validate")
        shown = root.find(f".//List[@name='{control.get('toName')}']") if control is not None else None
        items = (shown.get("value") or "").removeprefix("$") if shown is not None else "items"
        own = {*answers, items}
        prompts = [name for name in displayed(root) if name.removesuffix(MARKDOWN_SUFFIX) not in own]
        if not prompts:
            raise LspluginError("this config displays no prompt beside its answers")
        name = control.get("name") if control is not None else None
        tiers = tuple(bucket.get("name", "") for bucket in root.iter("Bucket"))
        stars = [int(rating.get("maxRating", 5)) for rating in root.iter("Rating")]
        controls = {found.get("name", ""): str(found.tag) for found in root.iter(*CONTROL_TAGS)}
        lists = tuple(found.get("value", "").removeprefix("$") for found in root.iter("Paragraphs", "List"))
        return cls(
            prompts[0], answers or None, name, items, tiers or None, ratings, max(stars, default=5), controls, lists
        )

    def fields_of(self, data: Mapping[str, Any]) -> tuple[str, ...]:
        """Give the fields of a task's answers, in their order."""
        if self.answers is not None:
            return self.answers
        return _numbered(tuple(data))


@lru_cache
def _numbered(names: tuple[str, ...]) -> tuple[str, ...]:
    """Give answer1, answer2, ... of a task's fields, which are the same ones in nearly all tasks of an export."""
    numbers = [int(name.removeprefix("answer")) for name in names if _is_answer(name)]
    return tuple(f"answer{number}" for number in sorted(numbers))


def _is_answer(name: str) -> bool:
    return name.startswith("answer") and name.removeprefix("answer").isdigit()


def _control(root: etree._Element) -> etree._Element | None:
    """Find what compares: Pairwise, our scale, or a Ranker."""
    for path in (".//Pairwise", f".//Choices[@name='{CONTROL}']", ".//Ranker"):
        found: etree._Element | None = root.find(path)
        if found is not None:
            return found
    return None


def _ratings(root: etree._Element) -> dict[str, str]:
    """Find which Rating rates which field."""
    shown = {found.get("name", ""): found.get("value", "") for found in root.iter(*OBJECT_TAGS)}
    return {
        rating.get("name", ""): shown[rating.get("toName", "")].removeprefix("$").removesuffix(MARKDOWN_SUFFIX)
        for rating in root.iter("Rating")
        if rating.get("toName") in shown
    }
