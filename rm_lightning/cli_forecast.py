"""`python -m rm_lightning forecast`: a thin command over functions that neither print nor exit; fit's options, and a few."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import lightning as L
import typer
from jsonargparse import ActionConfigFile  # type: ignore[attr-defined]

from lsplugin import console
from lsplugin.files import check_replaceable, read_json, write_json
from rm_lightning.arguments import PROGRAM, Help, Parser, of_union, with_ready_configs
from rm_lightning.cli import fill_in, trainer_refused
from rm_lightning.errors import RewardModelError
from rm_lightning.forecast import Asked, SubsetData, conclude, plan, remaining, run
from rm_lightning.module import RewardModel
from rm_lightning.quiet import quiet
from rm_lightning.sources import fingerprint
from rm_lightning.subsets import kinds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jsonargparse import Namespace

NAME = f"{PROGRAM} forecast"
MARKER = "forecast_settings.json"
"""The file that says a folder is an earlier forecast, and which one."""

DESCRIPTION = f"""Forecast what more labels would bring: a learning curve on parts of what is labelled, with intervals.

example:
  {NAME} --pairs pairs.jsonl --model.backbone gpt2 -o runs/forecast

Says in one line what --more comparisons bring, from when on they bring less than --worth, and which kind of comparison
teaches most; writes forecast.json, forecast.png, forecast.svg and report.html. Each fit is one of fit's, with its options, on
some of the comparisons, and its last weights count. Together they take about as long as 8 fits on everything; with
--kinds true, 5 to 15 more, by the number of kinds. The same command goes on where it was interrupted. Without
--model.backbone and --pairs, the demo world's small ones are used."""

_LEFT_OUT = {"validation_pairs", "test_pairs", "validation", "test", "seed"}
"""Options of fit's data that a forecast sets by itself."""


class _Parser(Parser):
    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Raise it as a mistake of the user's."""
        if not self.exit_on_error:
            super().error(message, ex)
        raise RewardModelError(f"{of_union(message)}; `{NAME} --help` tells all options")


def parser() -> Parser:
    """Make the parser: forecast's own options, then model, data and trainer as in fit."""
    made = _Parser(prog=NAME, description=DESCRIPTION, formatter_class=Help, usage=f"{NAME} --pairs FILE [options]")
    made.add_argument("-c", "--config", action=ActionConfigFile, help="A ready configuration of fit's, or a file.")
    made.add_argument("-o", "--output", type=Path, default=Path("runs/forecast"), help="Folder of the forecast.")
    default = Asked()
    made.add_argument("--more", type=int, default=default.more, help="Comparisons that may be bought.")
    made.add_argument(
        "--worth",
        type=float,
        default=default.worth,
        help="The gain in accuracy that so many should bring; 0.01 is a point.",
    )
    made.add_argument("--folds", type=int, default=default.folds, help="How often prompts are held out, each once.")
    made.add_argument("--kinds", type=bool, default=default.kinds, help="Ask which kind of comparison teaches most.")
    made.add_argument("--seed", type=int, default=default.seed, help="Of folds, subsets and fits.")
    made.add_lightning_class_args(RewardModel, "model")
    made.add_class_arguments(SubsetData, "data", skip=_LEFT_OUT)
    made.add_lightning_class_args(L.Trainer, "trainer")
    made.link_arguments("model.backbone", "data.backbone")
    made.link_arguments("model.join", "data.join")
    made.set_defaults(
        {
            "trainer.max_epochs": 3,
            "trainer.gradient_clip_val": 1.0,
            "trainer.num_sanity_val_steps": 0,
            "trainer.limit_val_batches": 0,
            "trainer.devices": 1,
            "trainer.logger": False,
            "trainer.enable_checkpointing": False,
            "trainer.enable_progress_bar": False,
            "trainer.enable_model_summary": False,
        }
    )
    return made


def main(args: Sequence[str]) -> None:
    """Run the command line."""
    quiet()
    try:
        _forecast(args)
    except KeyboardInterrupt:
        console.say("interrupted; the same command goes on from the fits that are done")
        sys.exit(130)


def _forecast(args: Sequence[str]) -> None:
    known = parser()
    config: Any = known.parse_args(with_ready_configs([_as_fit(arg) for arg in args]))
    asked = Asked(config.more, config.worth, config.folds, config.kinds, config.seed).check()
    output: Path = config.output
    check_replaceable(output, marker=MARKER)
    fill_in(config)
    if (config.trainer.devices, config.trainer.num_nodes) not in {(1, 1), ("1", 1)}:
        raise RewardModelError(
            f"--trainer.devices {config.trainer.devices}: a forecast's fits run on one device, one after the other"
        )

    def make() -> tuple[RewardModel, L.Trainer]:
        made = known.instantiate_classes(config)
        with trainer_refused():
            return made.model, L.Trainer(**made.trainer)

    make()  # what cannot be made is said before anything is written
    data = known.instantiate_classes(config).data
    jobs = plan(data, asked)
    fits = output / "fits"
    _begin(output, fits, config, data)
    count, labels, done = remaining(jobs, data, fits)
    went_on = f", {done:,} of them in fits that are there already" if done else ""
    console.say(
        f"{count} fits on {labels:,} comparisons in all{went_on}; the same command goes on after an interruption"
    )

    try:
        with console.progress("forecasting", labels) as advance:
            found = run(jobs, data, make, fits, seed=asked.seed, advance=advance)
    except SystemExit:  # Lightning makes an exit of what interrupts a fit
        raise KeyboardInterrupt from None
    shares = {name: float(which.mean()) for name, which in kinds_of(data.pairs()).items()} if asked.kinds else {}
    told = conclude(jobs, found, int(data.whole().comparisons.sum()), asked, shares)
    from rm_lightning.forecast_report import write_forecast

    write_forecast(output, told, read_json(output / MARKER))
    typer.echo(told["said"])
    console.say(f"wrote {output / 'report.html'}")


def _as_fit(arg: str) -> str:
    """Take `--pairs`, as short as it is, for fit's `--data.pairs`."""
    return f"--data.pairs{arg.removeprefix('--pairs')}" if arg.partition("=")[0] == "--pairs" else arg


def _begin(output: Path, fits: Path, config: Namespace, data: SubsetData) -> None:
    """Keep the fits of the same settings and comparisons; clear away those of others."""
    told = {
        "backbone": config.model.backbone or "the demo world's base model",
        "comparisons": data.files["train"],
        "fingerprint": fingerprint(data.files["train"]),
        **{name: config[name] for name in ("folds", "seed")},
        **{
            part: {k: v for k, v in config[part].as_dict().items() if k != "cache"}
            for part in ("model", "data", "trainer")
        },
    }
    settings = json.loads(json.dumps(told, default=str))
    if (output / MARKER).is_file() and read_json(output / MARKER) != settings:
        shutil.rmtree(fits, ignore_errors=True)
    output.mkdir(parents=True, exist_ok=True)
    write_json(output / MARKER, settings)
