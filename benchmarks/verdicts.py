"""What `lsplugin validate`, a real Label Studio and its SDK say of each broken config of the corpus.

    python benchmarks/verdicts.py

Writes docs/verdicts.md. The server is that of LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY, else one that this script starts; each
config becomes a project, each tasks file an import into it, and the projects are deleted again.
"""

from __future__ import annotations

import importlib.metadata
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import platformdirs

from lsplugin.connection import URL_VARIABLE, Connection, resolve
from lsplugin.console import progress
from lsplugin.files import read_json, read_text, write_text
from lsplugin.server import serve
from lsplugin.validation import RULES, validate

if TYPE_CHECKING:
    from collections.abc import Iterator

REPOSITORY = Path(__file__).resolve().parent.parent
CORPUS = REPOSITORY / "tests" / "configs" / "bad"
PAGE = REPOSITORY / "docs" / "verdicts.md"


class Case(NamedTuple):
    """A broken config.

    Attributes:
        name: its file without `.xml`.
        xml: its text.
        rule: the rule that it breaks.
        tasks: data of the tasks for it; empty where the config itself is broken.
        server_version: version that it is meant for, when that is the fault.
    """

    name: str
    xml: str
    rule: str
    tasks: list[dict[str, Any]]
    server_version: str | None


class Verdict(NamedTuple):
    """What somebody says of a config.

    Attributes:
        refuses: whether the config, or its tasks, are not taken.
        says: why, on one line.
    """

    refuses: bool
    says: str = ""


def corpus() -> list[Case]:
    """Read the corpus."""
    return [
        Case(
            name,
            read_text(CORPUS / f"{name}.xml"),
            row["rule"],
            read_json(CORPUS / row["tasks"]) if "tasks" in row else [],
            row.get("server_version"),
        )
        for name, row in read_json(CORPUS / "expected.json").items()
    ]


def ours(case: Case) -> Verdict:
    """Ask `lsplugin.validation`."""
    issues = validate(case.xml, tasks=case.tasks, server_version=case.server_version)
    named = [f"{issue.severity}: {issue.rule}, line {issue.line}" for issue in issues if issue.rule == case.rule]
    return Verdict(bool(named), named[0] if named else "")


def sdk(case: Case) -> Verdict:
    """Ask the SDK's LabelInterface: the config, then each task."""
    from label_studio_sdk import label_interface

    try:
        interface: Any = label_interface.LabelInterface(case.xml)  # type: ignore[attr-defined]
        interface.validate()
        taken = [interface.validate_task({"data": task}) for task in case.tasks]
    except Exception as error:  # noqa: BLE001 - the SDK raises bare exceptions, and any of them is its verdict
        return Verdict(refuses=True, says=one_line(error))
    return Verdict(refuses=False) if all(taken) else Verdict(refuses=True, says="the task is not valid")


def server(case: Case, client: Any) -> Verdict:  # noqa: ANN401 - the SDK's client is untyped
    """Ask a running Label Studio: create a project with the config, then import the tasks."""
    from label_studio_sdk.core.api_error import ApiError

    once = {"max_retries": 0}
    try:
        project = client.projects.create(title="verdict", label_config=case.xml, request_options=once)
    except ApiError as error:
        return refusal(error)
    try:
        if case.tasks:
            client.projects.import_tasks(project.id, request=case.tasks, request_options=once)
    except ApiError as error:
        return refusal(error)
    finally:
        client.projects.delete(project.id)
    return Verdict(refuses=False)


def refusal(error: Any) -> Verdict:  # noqa: ANN401 - the SDK's errors are untyped
    """Read a server's refusal; the body of a 400 of its own says which field was wrong."""
    body = error.body
    reasons = (body.get("validation_errors") or body.get("detail")) if isinstance(body, dict) else None
    return Verdict(refuses=True, says=f"{error.status_code}: {said(reasons or body)}")


def said(body: object) -> str:
    """Find the reasons in an error's body, however deep they lie."""
    if isinstance(body, str) and "<html" in body.lower():
        return "no reason (an error page)"
    if isinstance(body, dict | list):
        parts = body.values() if isinstance(body, dict) else body
        return one_line("; ".join(text for text in map(said, parts) if text))
    return one_line(body)


def one_line(text: object, most: int = 110) -> str:
    """Shorten anything to one line that can stand in a table."""
    line = " ".join(str(text).split()).replace("|", "\\|").replace("`", "'")
    return line if len(line) <= most else line[: most - 3] + "..."


@contextmanager
def label_studio() -> Iterator[Connection]:
    """Give the server that the environment names, else one of our own; its folder is kept, as its first start takes minutes."""
    if os.environ.get(URL_VARIABLE):
        yield resolve()
        return
    version = importlib.metadata.version("label-studio")
    with serve(platformdirs.user_cache_path("label-studio-rlhf") / "benchmarks" / version) as running:
        yield running.connection


def page(rows: list[tuple[Case, Verdict, Verdict, Verdict]], version: str) -> str:
    """Lay the verdicts out as a page of Markdown."""
    count = len(rows)
    totals = [sum(row[column].refuses for row in rows) for column in (1, 2, 3)]  # type: ignore[union-attr]
    sdk_version = importlib.metadata.version("label-studio-sdk")
    lines = [
        "# Verdicts on broken configs",
        "",
        f"Each of the {count} configs in `tests/configs/bad/` has one fault. Three were asked about each; a dash: not a word.",
        "",
        "| asked | how | refuses or warns |",
        "|---|---|---|",
        f"| lsplugin | `lsplugin validate CONFIG --tasks FILE` | {totals[0]} of {count} |",
        f"| Label Studio {version} | create a project with the config, import the tasks | {totals[1]} of {count} |",
        f"| label-studio-sdk {sdk_version} | `LabelInterface(xml).validate()`, `validate_task(task)` | {totals[2]} of {count} |",
        "",
        "Made by `python benchmarks/verdicts.py`, which really asks all three.",
        "The config for `tag-too-new` is meant for an older server than the one asked.",
        "",
        "| config | what must hold | lsplugin | Label Studio | SDK |",
        "|---|---|---|---|---|",
    ]
    for case, mine, theirs, kit in rows:
        must = RULES[case.rule].summary if case.rule in RULES else case.rule
        cells = [
            case.name,
            one_line(must),
            *(verdict.says if verdict.refuses else "-" for verdict in (mine, theirs, kit)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Ask all three about every config, and write the page."""
    from label_studio_sdk.client import LabelStudio

    cases = corpus()
    with (
        label_studio() as connection,
        httpx.Client(limits=httpx.Limits(max_keepalive_connections=0), timeout=60) as http,
    ):
        client = LabelStudio(base_url=connection.url, api_key=connection.api_key, httpx_client=http)  # type: ignore[no-untyped-call]
        version = http.get(f"{connection.url}/api/version").json()["release"]
        rows = []
        with progress("asking", total=len(cases)) as advance:
            for case in cases:
                rows.append((case, ours(case), server(case, client), sdk(case)))
                advance(1)
    write_text(PAGE, page(rows, version))
    print(f"{PAGE}: {len(rows)} configs; found by lsplugin {sum(row[1].refuses for row in rows)}, ", end="")
    print(f"Label Studio {sum(row[2].refuses for row in rows)}, SDK {sum(row[3].refuses for row in rows)}")


if __name__ == "__main__":
    main()
