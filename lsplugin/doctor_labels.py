"""What is stored in a project, looked at one task at a time."""

from __future__ import annotations

from collections import Counter
from typing import Any

from lxml import etree

from lsplugin.answers import MARKDOWN_SUFFIX
from lsplugin.dataset import KEY
from lsplugin.flags import READING
from lsplugin.offered import Offered
from lsplugin.prepare import displayed

SECOND = 1.0
"""A label that took less (seconds) was not thought about."""

TOLERATED = 0.05
"""The share of labels that may be too fast: people go back to a task that they know."""


class Stored:
    """Counts over the tasks of an export.

    Attributes:
        tasks: how many there are.
        votes: annotations that are no skips.
        empty: votes without any result.
        unfit: results that do not fit the config, by reason.
        timed: votes that say how long they took.
        fast: votes that were faster than reading, by annotator.
        shown: numbers of the tasks whose meta says that a prelabel was shown.
        copies: tasks whose content key another one has, too.
    """

    def __init__(self, config: str) -> None:
        self.tasks = self.votes = self.empty = self.timed = self.copies = 0
        self.unfit: Counter[str] = Counter()
        self.fast: Counter[int] = Counter()
        self.shown: set[int] = set()
        self._keys: set[str] = set()
        self._offered = Offered.from_config(config)
        root = etree.fromstring(config.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
        self._fields = [name.removesuffix(MARKDOWN_SUFFIX) for name in displayed(root)]

    @property
    def too_fast(self) -> bool:
        """Whether more labels were too fast than is tolerated."""
        return self.fast.total() > TOLERATED * self.timed

    def add(self, task: dict[str, Any]) -> None:
        """Look at one task."""
        self.tasks += 1
        meta = task.get("meta") if isinstance(task.get("meta"), dict) else {}
        assert isinstance(meta, dict)
        key = meta.get(KEY)
        if isinstance(key, str):
            self.copies += key in self._keys
            self._keys.add(key)
        prelabel = meta.get("prelabel")
        if isinstance(prelabel, dict) and prelabel.get("shown") is True:
            self.shown.add(task["id"])
        reading = sum(_length(task["data"].get(name)) for name in self._fields) / READING
        for annotation in task.get("annotations") or []:
            self._add(annotation, reading)

    def _add(self, annotation: dict[str, Any], reading: float) -> None:
        results = annotation.get("result") or []
        for result in results:
            if reason := self._offered.unfit(result):
                self.unfit[reason] += 1
        if annotation.get("was_cancelled"):
            return
        self.votes += 1
        self.empty += not results
        seconds = annotation.get("lead_time")
        if isinstance(seconds, int | float):
            self.timed += 1
            by = annotation.get("completed_by")
            number = by.get("id", 0) if isinstance(by, dict) else by
            self.fast[int(number or 0)] += seconds < max(SECOND, reading)


def _length(value: object) -> int:
    """Count the characters of a text, or of all texts in a conversation; the items of a ranking only name the answers."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, list):
        return sum(len(str(turn.get("content") or "")) for turn in value if isinstance(turn, dict))
    return 0
