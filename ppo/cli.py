"""`python -m ppo generate|run|evaluate`."""

from __future__ import annotations

import typer

from ppo.cli_evaluate import evaluate
from ppo.cli_generate import generate
from ppo.cli_run import run

app = typer.Typer(
    name="ppo",
    help="Tune a language model with a reward and a KL penalty, sample answers from it, and see whether it got better.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for command, example in (
    (generate, "--policy gpt2 --prompts prompts.jsonl --answers 2 -o dataset.json"),
    (run, "--policy gpt2 --reward runs/rm --prompts prompts.jsonl --output runs/ppo"),
    (evaluate, "--policy runs/ppo --base gpt2 --prompts held_out.jsonl --reward runs/rm"),
):
    app.command(epilog=f"Example: python -m ppo {command.__name__} {example}")(command)
