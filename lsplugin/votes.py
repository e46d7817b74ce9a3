"""What annotators said of every two answers, as columns of numbers: what agreement and aggregation are computed from."""

from __future__ import annotations

import hashlib
from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lsplugin.preferences import prompt_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import numpy as np
    import numpy.typing as npt

    from lsplugin.judged import Judged

_NOT_ASKED = float("nan")


@dataclass(frozen=True)
class Said:
    """What was said of one item, seen from the answer that wins.

    Attributes:
        weight: how many votes there were.
        margin: mean of the margins, negative ones against it, never below 0; None where nobody was asked.
        meta: votes for each side, and who gave them.
    """

    weight: float
    margin: float | None
    meta: dict[str, Any]


@dataclass
class Votes:
    """One row a vote, in the order of the export. An item is two answers to a prompt, wherever and however often shown.

    Which of an item's answers is its first is settled by the task that shows them first: the one that stands on the left there.

    Attributes:
        item: of each vote, the number of its item.
        annotator: of each vote, the number of its annotator, as in `annotators`.
        choice: 1 for the item's first answer, -1 for its second, 0 for a tie.
        side: 1 where the item's first answer stood left of its second (or above it), else -1.
        margin: signed as the choice; not a number where nobody was asked.
        bad: 1 where the tie is one of bad answers.
        nodes: of each item, the numbers of its two answers: the same answer to the same prompt has one number in all items.
        annotators: who they are, each with a number.
    """

    item: array[int] = field(default_factory=lambda: array("l"))
    annotator: array[int] = field(default_factory=lambda: array("l"))
    choice: array[int] = field(default_factory=lambda: array("b"))
    side: array[int] = field(default_factory=lambda: array("b"))
    margin: array[float] = field(default_factory=lambda: array("f"))
    bad: array[int] = field(default_factory=lambda: array("b"))
    nodes: tuple[array[int], array[int]] = field(default_factory=lambda: (array("l"), array("l")))
    annotators: dict[str, int] = field(default_factory=dict)
    _items: dict[tuple[int, int], int] = field(default_factory=dict)
    _nodes: dict[int, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.item)

    @property
    def items(self) -> int:
        """How many items there are."""
        return len(self.nodes[0])

    def add(self, judged: Judged) -> list[int]:
        """Add what one annotation says; return the rows, none where it says nothing or the answers are the same text."""
        rows: list[int] = []
        if judged.judgement is None:
            return rows
        annotator = self.annotators.setdefault(judged.annotator, len(self.annotators))
        places = {place: tier for tier, found in enumerate(judged.judgement.tiers) for place in found}
        for first, second, item in self.items_of(judged):
            ahead = places[second] - places[first]
            choice = (ahead > 0) - (ahead < 0)
            better, worse = (first, second) if choice > 0 else (second, first)
            margin = judged.judgement.margin(better, worse) if choice else None
            rows.append(len(self.item))
            self.item.append(item)
            self.annotator.append(annotator)
            self.choice.append(choice)
            self.side.append(1 if first < second else -1)
            self.margin.append(_NOT_ASKED if margin is None else choice * margin)
            self.bad.append(judged.judgement.bad)
        return rows

    def items_of(self, judged: Judged) -> Iterator[tuple[int, int, int]]:
        """Yield (place of the item's first answer, place of its second, item) for every two answers that were compared."""
        if judged.judgement is None:
            return
        prompt = prompt_text(judged.prompt)
        compared = sorted(place for tier in judged.judgement.tiers for place in tier)
        numbers = {place: self._node(prompt, judged.texts[place]) for place in compared}
        for position, left in enumerate(compared):
            for right in compared[position + 1 :]:
                one, other = numbers[left], numbers[right]
                if one != other:
                    item = self._item(one, other)
                    yield (left, right, item) if self.nodes[0][item] == one else (right, left, item)

    def columns(self) -> dict[str, npt.NDArray[np.float64]]:
        """Give item, annotator, choice, side and margin as arrays; each (votes,)."""
        import numpy as np

        names = ("item", "annotator", "choice", "side", "margin")
        return {name: np.array(getattr(self, name), dtype=float) for name in names}

    def summaries(self) -> Callable[..., Said]:
        """Sort the votes by item; the function returned tells of any item what was said of it."""
        import numpy as np

        item = np.array(self.item)
        order = np.argsort(item, kind="stable")
        starts = np.searchsorted(item[order], np.arange(self.items + 1))
        names = list(self.annotators)

        def said(number: int, *, first_wins: bool) -> Said:
            rows = order[starts[number] : starts[number + 1]].tolist()
            sign = 1 if first_wins else -1
            choices = [sign * self.choice[row] for row in rows]
            margins = [sign * self.margin[row] for row in rows if self.margin[row] == self.margin[row]]
            counts = {"chosen": choices.count(1), "rejected": choices.count(-1), "tie": choices.count(0)}
            meta = {"votes": counts, "annotators": [names[self.annotator[row]] for row in rows]}
            mean = sum(margins) / (len(margins) + counts["tie"]) if margins else None
            return Said(float(len(rows)), None if mean is None else round(max(0.0, mean), 6), meta)

        return said

    def _node(self, prompt: str, text: str) -> int:
        whole = f"{len(prompt)} {prompt}{text}".encode("utf-8", "surrogatepass")
        digest = int.from_bytes(hashlib.blake2b(whole, digest_size=8).digest())
        return self._nodes.setdefault(digest, len(self._nodes))

    def _item(self, one: int, other: int) -> int:
        key = (min(one, other), max(one, other))
        item = self._items.setdefault(key, self.items)
        if item == self.items:
            self.nodes[0].append(one)
            self.nodes[1].append(other)
        return item
