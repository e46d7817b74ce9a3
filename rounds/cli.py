"""`python -m rounds start|next|status|report|trace`, and the steps of its own: draw, choose, gather."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from lsplugin import console
from lsplugin.files import as_path
from lsplugin.options import make, with_options
from rounds.cli_steps import choose, draw, gather
from rounds.settings import Rounds

app = typer.Typer(
    name="rounds",
    help="Labels, reward model, policy, and again: rounds that can be stopped, resumed, read, and traced to their labels.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Folder = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the rounds.")]
AsJson = Annotated[bool, typer.Option("--json", help="As JSON.")]


@app.command(epilog="Example: python -m rounds start runs/helpful --policy gpt2 --prompts prompts.jsonl --labels 300")
@with_options(Rounds)
def start(
    folder: Folder,
    policy: Annotated[str, typer.Option("--policy", help="Language model to start from: a folder or hub name.")],
    prompts: Annotated[
        Path, typer.Option("--prompts", parser=as_path, metavar="FILE", help="One {'prompt': ...} a line.")
    ],
    held_out: Annotated[
        Path | None,
        typer.Option(
            "--held-out",
            parser=as_path,
            metavar="FILE",
            help="Prompts to measure on; otherwise some are drawn.",
            show_default=False,
        ),
    ] = None,
    held_out_share: Annotated[
        float, typer.Option("--held-out-share", help="Share of the prompts that is drawn to measure on.")
    ] = 0.1,
    template: Annotated[
        str, typer.Option("--template", help="What people see: see `lsplugin templates`.")
    ] = "pairwise",
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            parser=as_path,
            metavar="FILE",
            help="A labeling config instead of a template.",
            show_default=False,
        ),
    ] = None,
    **settings: Any,  # noqa: ANN401 - the options of Rounds
) -> None:
    """Write a folder with the settings (rounds.yaml), the prompts dealt out, and what people will see (config.xml)."""
    from rounds.start import start as begin

    counts = begin(
        folder, make(Rounds, settings), policy=policy, prompts=prompts, held_out=held_out, held_out_share=held_out_share,
        config=config, template=template,
    )  # fmt: skip
    console.say(
        f"wrote {folder}: {counts['tuning']} prompts to tune on, {counts['judging']} for the judge, "
        f"{counts['held_out']} to measure on\n"
        f"look at {folder}/rounds.yaml and config.xml, then: python -m rounds next {folder}"
    )


@app.command("next", epilog="Example: python -m rounds next runs/helpful")
def next_(
    folder: Folder,
    again: Annotated[
        bool,
        typer.Option(
            "--again", help="Do stale steps again even where people have their tasks: new ones are added, labels stay."
        ),
    ] = False,
    enough: Annotated[
        bool, typer.Option("--enough", help="Do not wait for tasks that nobody has labelled yet.")
    ] = False,
) -> None:
    """Do every step up to the one that waits for people; run it again when they have labelled, or after a kill."""
    from rounds.run import go_on
    from rounds.state import Place
    from rounds.status import waiting_line

    Place(folder)  # complaints about the folder come before it is locked
    try:
        waiting = go_on(lambda: Place(folder), folder, again=again, enough=enough, tell=console.say)
    except KeyboardInterrupt:
        console.say("interrupted; the same command goes on there")
        raise typer.Exit(130) from None
    typer.echo(
        waiting_line(waiting)
        if waiting
        else f"all {Place(folder).settings.rounds} rounds are done; see `python -m rounds report`"
    )


@app.command(epilog="Example: python -m rounds status runs/helpful")
def status(folder: Folder, as_json: AsJson = False) -> None:
    """Say which steps are done, which are stale and why; asks no server."""
    import json

    from rounds.state import Place
    from rounds.status import as_text, to_dict

    place = Place(folder)
    found = place.all()
    typer.echo(json.dumps(to_dict(place, found), indent=2, ensure_ascii=False) if as_json else as_text(place, found))


@app.command(epilog="Example: python -m rounds report runs/helpful --hourly-rate 30")
def report(
    folder: Folder,
    output: Annotated[
        Path | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="The page; DIR/report.html by default.", show_default=False
        ),
    ] = None,
    hourly_rate: Annotated[float, typer.Option("--hourly-rate", min=0, help="What an hour of labelling costs.")] = 0.0,
    currency: Annotated[str, typer.Option("--currency", help="Of the rate.")] = "EUR",
) -> None:
    """Write one page for everybody: labels, agreement, reward model, policy against the start, hours and cost; and its JSON."""
    from lsplugin.files import write_json, write_text
    from rounds.figures import figures
    from rounds.report import page, table
    from rounds.state import Place

    target = output or folder / "report.html"
    found = figures(Place(folder), rate=hourly_rate, currency=currency)
    write_text(target, page(found, folder, target))
    write_json(target.with_suffix(".json"), found)
    typer.echo(table(found))
    console.say(f"wrote {target} and {target.with_suffix('.json')}")


@app.command(epilog="Example: python -m rounds trace runs/helpful/round-2/policy --pseudonyms")
def trace(
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A policy, or any other file that a step wrote.")],
    pseudonyms: Annotated[
        bool,
        typer.Option(
            "--pseudonyms",
            help="Name annotators by a keyed hash; the key stays in DIR/.pseudonyms, readable by you alone.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Walk back from a file to the very annotations and annotators behind it; exit code 1 where something changed since."""
    import json

    from rounds.trace import as_tree
    from rounds.trace import trace as walk

    found = walk(path, pseudonyms=pseudonyms)
    typer.echo(json.dumps(found, indent=2, ensure_ascii=False) if as_json else as_tree(found))
    if found["changed"]:
        raise typer.Exit(1)


OWN = "Steps of a round, which `next` runs"
app.command(
    rich_help_panel=OWN,
    epilog="Example: python -m rounds draw tuning.jsonl judging.jsonl --labels 200 -o prompts.jsonl",
)(draw)
app.command(
    rich_help_panel=OWN, epilog="Example: python -m rounds choose start.json --judging judging.jsonl -o tasks.json"
)(choose)
app.command(rich_help_panel=OWN, epilog="Example: python -m rounds gather a.jsonl b.jsonl --judging judging.jsonl")(
    gather
)
