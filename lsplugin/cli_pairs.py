"""`lsplugin pairs`: annotations become preference pairs, in the form that a trainer reads."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lsplugin import console
from lsplugin.errors import LspluginError
from lsplugin.files import as_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from lsplugin.interface import Interface
    from lsplugin.judged import Accounting
    from lsplugin.preferences import Pair

PARTS = {2: ("train", "test"), 3: ("train", "validation", "test")}
"""What the files of a split are called."""

TIES = ("pairs", "trl-prompt-only")
"""The formats that --ties may fill: in all others a tie would read as a preference."""

METHODS = ("none", "majority", "dawid-skene", "bradley-terry")


def pairs(
    export: Annotated[
        Path, typer.Argument(metavar="EXPORT", parser=as_path, help="Label Studio's export: JSON, JSON_MIN or CSV.")
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", parser=as_path, metavar="FILE", help="Where the pairs go (JSONL).")
    ] = Path("pairs.jsonl"),
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            parser=as_path,
            metavar="FILE",
            help="The project's config; by default the one that `lsplugin pull` put beside the export, or our names.",
            show_default=False,
        ),
    ] = None,
    aggregate: Annotated[
        str,
        typer.Option(
            "--aggregate",
            metavar="|".join(METHODS),
            help="Make several annotators' votes on the same answers one pair, with a probability and a weight; none keeps "
            "each annotation a pair of its own.",
        ),
    ] = "none",
    ties: Annotated[
        bool, typer.Option("--ties", help="Make answers that people call equal a pair, too, with probability 0.5.")
    ] = False,
    split: Annotated[
        str | None,
        typer.Option("--split", help="Shares, such as 0.9,0.1: a file each, no prompt in two.", show_default=False),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Another seed splits anew.")] = 0,
    form: Annotated[str, typer.Option("--format", help="For which trainer: see `lsplugin formats`.")] = "pairs",
    sft: Annotated[
        Path | None,
        typer.Option(
            "--sft",
            parser=as_path,
            metavar="FILE",
            help="Write rewritten answers here, as prompt and completion.",
            show_default=False,
        ),
    ] = None,
    counts: Annotated[
        Path | None,
        typer.Option(
            "--counts", parser=as_path, metavar="FILE", help="Write the table as JSON, too.", show_default=False
        ),
    ] = None,
    skip_bad: Annotated[
        bool, typer.Option("--skip-bad", help="Count what cannot be understood instead of stopping at it.")
    ] = False,
) -> None:
    """Turn annotations into preference pairs; a table says where every annotation went."""
    from lsplugin.export import read_export
    from lsplugin.files import write_json, write_jsonl
    from lsplugin.formats import FORMATS, rows_for
    from lsplugin.judged import Accounting
    from lsplugin.pairs import aggregated_pairs, pairs_from_export

    if form not in FORMATS:
        raise LspluginError(f"--format {form}: expected one of {', '.join(FORMATS)}")
    if aggregate not in METHODS:
        raise LspluginError(f"--aggregate {aggregate}: expected one of {', '.join(METHODS)}")
    if ties and form not in TIES:
        raise LspluginError(
            f"--ties with --format {form}: its rows hold no probability, so a tie would read as a preference; expected "
            f"--format {' or '.join(TIES)}, or no --ties"
        )
    shares = _shares(split)
    interface = interface_of(export, config)
    accounting = Accounting()
    rewritten: list[dict[str, Any]] = []
    level: Counter[str] = Counter()
    options: dict[str, Any] = {"interface": interface, "skip_bad": skip_bad, "ties": ties}
    with console.progress("reading annotations") as advance:
        if aggregate == "none":
            found = pairs_from_export(read_export(export, interface=interface), accounting, **options)
        else:
            found = aggregated_pairs(lambda: read_export(export, interface=interface), accounting, aggregate, **options)
        kept = _noted(console.counted(found, advance), rewritten if sft is not None else None, level)
        written = _write(output, kept, form, shares, seed, rows_for)
    if sft is not None:
        write_jsonl(sft, rewritten)
        console.say(f"wrote {sft}: {len(rewritten)} rewritten answers")
    if counts is not None:
        write_json(counts, accounting.to_dict())
    console.say(accounting_table(accounting, ties=level.total()))
    for path, count in written.items():
        what = "pairs" if form == "pairs" else f"rows for {FORMATS[form].title}"
        console.say(f"wrote {path}: {count} {what}")


def formats() -> None:
    """List the trainers for which `lsplugin pairs --format` writes, each with the page that names its fields."""
    from lsplugin.formats import FORMATS

    for known in FORMATS.values():
        typer.echo(f"{known.name:20}{known.title}\n{'':20}{known.source}")


def interface_of(export: Path, config: Path | None) -> Interface | None:
    """Read the names of fields and controls from a config: the one given, or the one that `lsplugin pull` put there."""
    from lsplugin.files import is_there, read_text
    from lsplugin.interface import Interface

    beside = config_beside(export)
    if config is None and not is_there(str(beside)):
        return None
    return Interface.from_config(read_text(config or beside))


def config_beside(export: Path) -> Path:
    """Name the file in which `lsplugin pull` keeps the config of an export's project."""
    return export.with_suffix(".config.xml")


def accounting_table(accounting: Accounting, *, ties: int = 0) -> str:
    """Lay out where every annotation went: the rows above `annotations` sum to it; `ties` says how many pairs are one."""
    dropped = [(f"dropped: {reason}", count) for reason, count in sorted(accounting.dropped.items())]
    rows = [("used", accounting.used), *dropped, ("annotations", accounting.annotations), ("pairs", accounting.pairs)]
    if accounting.rewrites:
        rows.append(("  of them: an annotator's own version against the answer", accounting.rewrites))
    if ties:
        rows.append(("  of them: ties, with probability 0.5", ties))
    if accounting.ties:
        rows.append(("answers put level, two and two", accounting.ties))
    title = f"{accounting.tasks} tasks, {accounting.unlabelled} of them without an annotation"
    return console.table(title, rows)


def _shares(split: str | None) -> tuple[float, ...]:
    """Read `0.9,0.1`."""
    if split is None:
        return (1.0,)
    try:
        shares = tuple(float(share) for share in split.split(","))
    except ValueError:
        shares = ()
    if len(shares) not in PARTS or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6:
        raise LspluginError(f"--split {split}: expected two or three shares that sum to 1, such as 0.9,0.1")
    return shares


def _noted(found: Iterable[Pair], rewritten: list[dict[str, Any]] | None, level: Counter[str]) -> Iterator[Pair]:
    """Pass pairs on; note the rewritten answers where somebody wants them, and count the ties."""
    for pair in found:
        if rewritten is not None and "rewrite" in pair.meta:
            rewritten.append({"prompt": pair.prompt, "completion": pair.chosen, "meta": dict(pair.meta)})
        if (verdict := pair.meta.get("verdict")) is not None:
            level[verdict] += 1
        yield pair


def _write(
    output: Path,
    found: Iterable[Pair],
    form: str,
    shares: tuple[float, ...],
    seed: int,
    rows_for: Any,  # noqa: ANN401 - imported late
) -> dict[Path, int]:
    """Write the rows, all files or none; say how many are in each."""
    from lsplugin.files import write_jsonl_parts
    from lsplugin.preferences import part_of

    if len(shares) == 1:
        return {output: write_jsonl_parts([output], ((0, row) for row in rows_for(form, found)))[0]}
    paths = [output.with_suffix(f".{name}{output.suffix}") for name in PARTS[len(shares)]]
    dealt = ((part_of(pair.prompt, shares, seed=seed), row) for pair in found for row in rows_for(form, [pair]))
    return dict(zip(paths, write_jsonl_parts(paths, dealt), strict=True))
