"""Who has labelled how much of a project, and how long the rest takes at the present pace.

Nothing is exported. The first reading lists the tasks that somebody touched, with who, when and how long, but without texts
and results; each later one asks only for the tasks that changed, and checks its sums against the server's own counts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime, timedelta
from statistics import median
from typing import TYPE_CHECKING, Any

from lsplugin.members import names
from lsplugin.project import PAGE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lsplugin.project import Client, Project

BREAK = timedelta(minutes=10)
"""So long without a label, and a new stretch of work begins."""

STRETCH = timedelta(hours=1)
"""The pace is measured over at most so much of the last stretch."""

_FIELDS = ("completed_by", "created_at", "lead_time", "was_cancelled")


@dataclass(frozen=True)
class Vote:
    """One annotation, without what it says.

    Attributes:
        by: number of the annotator.
        at: when it was submitted.
        seconds: how long it took, where the editor told.
        skipped: whether the task was skipped.
    """

    by: int
    at: datetime
    seconds: float | None
    skipped: bool


@dataclass(frozen=True)
class Share:
    """What one annotator has done.

    Attributes:
        name: who.
        labels: annotations submitted.
        skips: tasks skipped.
        seconds: median time of a label; None where the editor told none.
        per_hour: labels an hour over the last stretch of work; None for fewer than two labels in it.
    """

    name: str
    labels: int
    skips: int
    seconds: float | None
    per_hour: float | None


@dataclass(frozen=True)
class Progress:
    """How far a project is.

    Attributes:
        tasks: how many there are.
        done: how many have as many annotators as the project wants.
        wanted: annotators that each task is to have.
        labels_left: labels that are missing until all are done.
        shares: what each annotator has done, the busiest first.
        per_hour: everybody's labels an hour over the last stretch of work.
        last: when the last label was submitted.
    """

    tasks: int
    done: int
    wanted: int
    labels_left: int
    shares: tuple[Share, ...]
    per_hour: float | None
    last: datetime | None

    @property
    def finished(self) -> bool:
        """Whether nothing is left to do."""
        return self.done >= self.tasks

    @property
    def left(self) -> timedelta | None:
        """How long the rest takes at the present pace; None where there is none."""
        return timedelta(hours=self.labels_left / self.per_hour) if self.per_hour else None


class Reader:
    """Reads a project's progress again and again.

    Args:
        client: the server.
        project: which project.
    """

    def __init__(self, client: Client, project: Project) -> None:
        self._client = client
        self._id = project.id
        self._names: dict[int, str] = {}
        self._votes: dict[int, list[Vote]] = {}
        self._read_until: str | None = None

    def read(self) -> Progress:
        """Give the progress as it is now."""
        counts = self._client.call("reading the project's counts", f"api/projects/{self._id}")
        newest = self._newest()
        if self._read_until is None:
            self._read_all()
        else:
            changed = self._listed(_filter("updated_at", "greater_or_equal", "Datetime", self._read_until))
            self._votes = {task: votes for task, votes in (self._votes | changed).items() if votes}
            expected = (counts["total_annotations_number"] or 0, counts["skipped_annotations_number"] or 0)
            if self._sums() != expected:  # something was deleted, or arrived just now
                self._read_all()
        self._read_until = newest
        return self._progress(counts)

    def _progress(self, counts: dict[str, Any]) -> Progress:
        wanted = counts["maximum_annotations"] or 1
        tasks = counts["task_number"] or 0
        by: dict[int, list[Vote]] = {}
        for vote in self._all():
            by.setdefault(vote.by, []).append(vote)
        if by.keys() - self._names.keys():
            self._names = {number: f"user {number}" for number in by} | names(self._client)
        missing = [
            max(0, wanted - len({vote.by for vote in votes if not vote.skipped})) for votes in self._votes.values()
        ]
        shares = [_share(self._names[number], votes) for number, votes in by.items()]
        times = sorted(vote.at for vote in self._all() if not vote.skipped)
        return Progress(
            tasks=tasks,
            done=counts["finished_task_number"] or 0,
            wanted=wanted,
            labels_left=sum(missing) + wanted * max(0, tasks - len(missing)),
            shares=tuple(sorted(shares, key=lambda share: (-share.labels, -share.skips, share.name))),
            per_hour=pace(times),
            last=times[-1] if times else None,
        )

    def _all(self) -> Iterator[Vote]:
        for votes in self._votes.values():
            yield from votes

    def _sums(self) -> tuple[int, int]:
        """Count labels and skips."""
        skips = sum(vote.skipped for vote in self._all())
        return sum(map(len, self._votes.values())) - skips, skips

    def _read_all(self) -> None:
        touched = [
            _filter("total_annotations", "greater", "Number", 0),
            _filter("cancelled_annotations", "greater", "Number", 0),
        ]
        self._votes = self._listed(*touched)

    def _newest(self) -> str | None:
        """Give the time of the last change to any task: what changes after this is seen by the next reading."""
        found = self._page(1, size=1, include="updated_at", query={"ordering": ["-tasks:updated_at"]})
        return found["tasks"][0]["updated_at"] if found["tasks"] else None

    def _listed(self, *filters: dict[str, Any]) -> dict[int, list[Vote]]:
        """Read the votes on the tasks that any of the filters selects."""
        # Without the expansion the server gives whole annotations, in more than twice the time.
        include = ",".join(["id", *(f"annotations.{name}" for name in _FIELDS)])
        query = {"filters": {"conjunction": "or", "items": list(filters)}}
        votes: dict[int, list[Vote]] = {}
        number, more = 1, True
        while more:
            page = self._page(number, size=PAGE, include=include, query=query, expand="annotations", fields="all")
            votes |= {task["id"]: [_vote(found) for found in task.get("annotations") or []] for task in page["tasks"]}
            number, more = number + 1, number * PAGE < page["total"]
        return votes

    def _page(self, number: int, *, size: int, query: dict[str, Any], **params: str) -> dict[str, Any]:
        params |= {"project": str(self._id), "page": str(number), "page_size": str(size), "query": json.dumps(query)}
        found: dict[str, Any] = self._client.call("reading who labelled what", "api/tasks/", params=params)
        return found


def pace(times: Iterable[datetime]) -> float | None:
    """Labels an hour over the last stretch: back from the last label to the last break, an hour at most.

    n labels span n - 1 intervals; None for fewer than two labels, or none of any length.

    Args:
        times: of the labels, earliest first.
    """
    stretch: list[datetime] = []
    for time in sorted(times, reverse=True):
        if stretch and (stretch[-1] - time > BREAK or stretch[0] - time > STRETCH):
            break
        stretch.append(time)
    hours = (stretch[0] - stretch[-1]) / timedelta(hours=1) if stretch else 0.0
    return (len(stretch) - 1) / hours if hours else None


def _share(name: str, votes: list[Vote]) -> Share:
    labels = [vote for vote in votes if not vote.skipped]
    seconds = [vote.seconds for vote in labels if vote.seconds is not None]
    return Share(
        name,
        len(labels),
        len(votes) - len(labels),
        median(seconds) if seconds else None,
        pace(vote.at for vote in labels),
    )


def _vote(found: dict[str, Any]) -> Vote:
    return Vote(
        by=found.get("completed_by") or 0,
        at=datetime.fromisoformat(found["created_at"]),
        seconds=found.get("lead_time"),
        skipped=bool(found.get("was_cancelled")),
    )


def _filter(column: str, operator: str, kind: str, value: object) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}
