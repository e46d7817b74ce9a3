"""Ready tabs for a project's Data Manager: what is to do, what is disputed, what was missed, what came from where.

What the Data Manager's page can take decides how a tab selects its tasks (docs/log.md has what was tried). "To do", "Labelled"
and the sources are conditions, so they hold for tasks and labels that come later. "Disputed" and "Gold: missed" name one
annotation of each task that they list, so they show how things are now, until they are made again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Any

from lsplugin.answers import MARKDOWN_SUFFIX
from lsplugin.exported import exported, project_tasks
from lsplugin.interface import Interface
from lsplugin.judged import Accounting, Judged, read_judged
from lsplugin.patterns import any_of, field_in_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from lsplugin.judgement import Judgement
    from lsplugin.project import Client, Project

MARK = "lsplugin"
"""Our tabs give a column of this name a width: the page keeps that through every change, and shows nothing of it."""

TITLES = ("To do", "Labelled", "Disputed", "Gold: missed")
SOURCE = "Source: "

COLUMNS = ("id", "total_annotations", "completed_at", "annotators")
"""Columns that say nothing of where an answer came from, besides the prompt and the answers."""


@dataclass(frozen=True)
class Tab:
    """A tab that was made.

    Attributes:
        title: what it is called.
        tasks: how many it lists.
        url: where a person opens it.
    """

    title: str
    tasks: int
    url: str


@dataclass
class Selected:
    """What the tabs select, out of an export.

    Attributes:
        disputed: for each task whose annotators disagree, the number of one of its annotations.
        missed: for each task whose known answer somebody missed, the number of the annotation that did.
        sources: where tasks came from.
    """

    disputed: list[int] = field(default_factory=list)
    missed: list[int] = field(default_factory=list)
    sources: dict[str, Any] = field(default_factory=dict)


def make_tabs(
    client: Client, project: Project, export: Path | None = None, *, advance: Callable[[int], None] = lambda _: None
) -> list[Tab]:
    """Make the tabs of a project; those that were made before are brought up to date, others are left as they are.

    Args:
        client: the server.
        project: whose tabs.
        export: its JSON export; by default it is exported anew.
        advance: called with the number of bytes of every chunk of a new export.

    Raises:
        LspluginError: a config that compares nothing, an export that cannot be read, or a server that refuses.
    """
    interface = Interface.from_config(project.config)
    with exported(client, project, export, advance=advance) as path:
        selected = select(project_tasks(path, project), interface)
    views = client.call("listing the tabs", "api/dm/views/", params={"project": project.id})
    own = {view["id"]: view["data"]["title"] for view in views if _is_ours(view["data"])}
    hidden = _hidden(client, project, interface)
    made = []
    for title, condition in _conditions(selected):
        number = next((number for number, found in own.items() if found == title), None)
        data = {
            "title": title,
            "type": "list",
            "target": "tasks",
            "columnsWidth": {MARK: 1},
            "hiddenColumns": {"explore": hidden, "labeling": hidden},
            "filters": {"conjunction": "and", "items": [condition]},
        }
        path_, method = ("api/dm/views/", "POST") if number is None else (f"api/dm/views/{number}/", "PATCH")
        view = client.call(
            f'making the tab "{title}"', path_, method=method, body={"project": project.id, "data": data}
        )
        own.pop(view["id"], None)
        made.append(_tab(client, project, title, view["id"]))
    for number, title in own.items():
        client.call(f'removing the tab "{title}"', f"api/dm/views/{number}/", method="DELETE")
    return made


def select(tasks: Iterable[dict[str, Any]], interface: Interface) -> Selected:
    """Read out of an export what the tabs select.

    Args:
        tasks: as `read_export` yields them.
        interface: where prompt, answers and controls are.
    """
    selected = Selected()
    everything = read_judged(_noting_sources(tasks, selected.sources), Accounting(), interface, skip_bad=True)
    for _, votes in groupby(everything, key=lambda judged: judged.task["id"]):
        said = [judged for judged in votes if judged.judgement is not None]
        if disagree(said):
            selected.disputed.append(said[0].annotation["id"])
        if wrong := [judged for judged in said if misses_gold(judged)]:
            selected.missed.append(wrong[0].annotation["id"])
    return selected


def disagree(said: Iterable[Judged]) -> bool:
    """Say whether two annotators put two answers in different orders, a tie against a preference included.

    Of several annotations by one person the last counts.
    """
    orders = {judged.annotator: _order(judged.judgement) for judged in said if judged.judgement is not None}
    seen: dict[tuple[int, int], int] = {}
    return any(seen.setdefault(pair, sign) != sign for order in orders.values() for pair, sign in order.items())


def misses_gold(judged: Judged) -> bool:
    """Say whether an annotation prefers something else, or also something else, than the answer that is known to be right."""
    gold = judged.task_meta.get("gold")
    answer = gold.get("answer") if isinstance(gold, dict) else None
    if judged.judgement is None or answer not in judged.names:
        return False
    return judged.judgement.bad or set(judged.judgement.tiers[0]) != {judged.names.index(answer)}


def _order(judgement: Judgement) -> dict[tuple[int, int], int]:
    """Give for every two places which is better: 1 for the first, -1 for the second, 0 for neither."""
    order = {(min(pair), max(pair)): 0 for pair in judgement.ties()}
    for better, worse in judgement.preferences():
        order[min(better, worse), max(better, worse)] = 1 if better < worse else -1
    return order


def _noting_sources(tasks: Iterable[dict[str, Any]], sources: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for task in tasks:
        meta = task.get("meta")
        source = meta.get("source") if isinstance(meta, dict) else None
        if isinstance(source, str | int | float):
            sources.setdefault(str(source), source)
        yield task


def _conditions(selected: Selected) -> Iterator[tuple[str, dict[str, Any]]]:
    """Give the title of each tab with what a task must meet to be in it."""
    yield TITLES[0], _filter("completed_at", "empty", "Datetime", value=True)
    yield TITLES[1], _filter("completed_at", "empty", "Datetime", value=False)
    for title, numbers in zip(TITLES[2:], (selected.disputed, selected.missed), strict=True):
        yield title, _filter("annotations_ids", "regex", "String", value=any_of(numbers))
    for name, source in sorted(selected.sources.items()):
        yield SOURCE + name, _filter("meta", "regex", "String", value=field_in_json("source", source))


def _is_ours(data: dict[str, Any]) -> bool:
    """Say whether we made a tab; one that a person renamed, or copied from ours, is theirs."""
    title = str(data.get("title"))
    return MARK in (data.get("columnsWidth") or {}) and (title in TITLES or title.startswith(SOURCE))


def _filter(column: str, operator: str, kind: str, *, value: object) -> dict[str, Any]:
    return {"filter": f"filter:tasks:{column}", "operator": operator, "type": kind, "value": value}


def _hidden(client: Client, project: Project, interface: Interface) -> list[str]:
    """Name every column but the few that are to be seen."""
    columns = client.call("listing the columns", "api/dm/columns/", params={"project": project.id})["columns"]
    data = {column["id"] for column in columns if column.get("parent") == "data"}
    answers = interface.fields_of(dict.fromkeys(data))
    prompt = interface.prompt.removesuffix(MARKDOWN_SUFFIX)
    shown = {prompt if prompt in data else interface.prompt, *answers}
    return [
        f"tasks:data.{column['id']}" if column.get("parent") == "data" else f"tasks:{column['id']}"
        for column in columns
        if column["id"] not in (shown if column.get("parent") == "data" else {*COLUMNS, "data"})
    ]


def _tab(client: Client, project: Project, title: str, number: int) -> Tab:
    """Ask how many tasks a tab lists, which shows that the server can list them."""
    params = {"view": number, "page_size": 1, "fields": "task_only", "include": "id"}
    found = client.call(f'listing the tab "{title}"', "api/tasks/", params=params)
    return Tab(title, found["total"], f"{project.url}/data?tab={number}")
