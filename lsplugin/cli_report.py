"""`lsplugin report` and `lsplugin triage`: how far labels can be trusted, and which to look at again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lsplugin import console
from lsplugin.cli_options import ApiKey, Url  # noqa: TC001 - typer reads them
from lsplugin.cli_pairs import accounting_table, config_beside, interface_of
from lsplugin.files import as_path

Export = Annotated[
    Path, typer.Argument(metavar="EXPORT", parser=as_path, help="Label Studio's export: JSON, JSON_MIN or CSV.")
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        parser=as_path,
        metavar="FILE",
        help="The project's config, as for `lsplugin pairs`; found beside the export.",
        show_default=False,
    ),
]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Count what cannot be understood instead of stopping at it.")]


def report(
    export: Export,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            parser=as_path,
            metavar="FILE",
            help="Where the page goes; its figures go beside it as JSON.",
        ),
    ] = Path("report.html"),
    config: Config = None,
    title: Annotated[str, typer.Option("--title", help="The page's heading.")] = "How far these labels can be trusted",
    seed: Annotated[int, typer.Option("--seed", help="Of the bootstrap intervals.")] = 0,
    skip_bad: SkipBad = False,
) -> None:
    """Say how far annotators agree, who stands out, what a reward model can reach: tables, a page with pictures, JSON."""
    from lsplugin.export import read_export
    from lsplugin.files import write_json, write_text
    from lsplugin.judged import Accounting
    from lsplugin.labels import read_labels
    from lsplugin.pairs import pairs_from_export
    from lsplugin.report import page, tables
    from lsplugin.summary import summarise

    interface = interface_of(export, config)
    with console.progress("reading annotations") as advance:
        tasks = console.counted(read_export(export, interface=interface), advance)
        labels = read_labels(tasks, interface=interface, skip_bad=skip_bad)
        advance(0, "measuring agreement")
        summary = summarise(labels, seed=seed)
        accounting = Accounting()
        again = read_export(export, interface=interface)
        for _ in pairs_from_export(again, accounting, interface=interface, skip_bad=skip_bad):
            advance(0, "counting")
        summary["accounting"] = accounting.to_dict()
        advance(0, "drawing")
        where = accounting_table(accounting)
        write_text(output, page(summary, title=title, where_it_went=where))
        write_json(output.with_suffix(".json"), summary)
    for text in tables(summary):
        typer.echo(text + "\n")
    console.say(f"wrote {output} and {output.with_suffix('.json')}")


def triage(
    export: Export,
    top: Annotated[int, typer.Option("--top", min=1, help="How many tasks at most.")] = 50,
    output: Annotated[
        Path,
        typer.Option(
            "-o", "--output", parser=as_path, metavar="FILE", help="Where the tasks go, as a dataset to decide on."
        ),
    ] = Path("disputed.json"),
    create: Annotated[
        str | None,
        typer.Option("--create", metavar="TITLE", help="Make a project of them at once.", show_default=False),
    ] = None,
    config: Config = None,
    url: Url = None,
    api_key: ApiKey = None,
    skip_bad: SkipBad = False,
) -> None:
    """List the tasks that annotators dispute most, and make a dataset of them, or a project for somebody who decides."""
    from lsplugin.errors import LspluginError
    from lsplugin.export import read_export
    from lsplugin.files import is_there, write_json
    from lsplugin.triage import disputed, rows

    interface = interface_of(export, config)
    with console.progress("reading annotations") as advance:
        cases = disputed(
            lambda: console.counted(read_export(export, interface=interface), advance),
            top=top,
            interface=interface,
            skip_bad=skip_bad,
        )
    if not cases:
        raise LspluginError(f"{export}: no two annotators disagree on anything, so there is nothing to decide")
    write_json(output, list(rows(cases)))
    listed = [(str(case.task), f"{case.dispute:.2f}", _votes(case.votes)) for case in cases]
    typer.echo(console.table("Most disputed", listed, header=("task", "split", "votes")))
    console.say(f"wrote {output}: {len(cases)} tasks")
    if create is not None:
        from lsplugin.cli_push import create as create_project

        beside = config_beside(export)
        known = config or (beside if is_there(str(beside)) else None)
        create_project(title=create, config=known, tasks=output, url=url, api_key=api_key)


def _votes(votes: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in votes.items() if count)
