"""Memory of `fit` for few and for many pairs, with tokens to be made and with tokens that are there.

    python benchmarks/rm_memory.py                       # 10,000 and 1,000,000 pairs
    python benchmarks/rm_memory.py --pairs 2000          # a smoke run

Pairs of about a hundred tokens an answer are streamed to a file, a GPT-2 of two layers and its tokenizer are made here. Each fit
is a process of its own, 20 steps long: peak memory is what the kernel says of it (ru_maxrss), and the time until its first step
has ended is told by the process. What the file costs to make counts nowhere.
"""

from __future__ import annotations

import json
import multiprocessing
import random
import resource
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from lsplugin.console import say
from lsplugin.preferences import Pair, write_pairs

if TYPE_CHECKING:
    from collections.abc import Iterator

STEPS = 20
WORDS = 2000
LENGTH = 40
"""Words of an answer, about; a hundred tokens."""
HELD_OUT = 100
LIMIT = 1536
"""MiB that every fit should stay within."""


def vocabulary() -> list[str]:
    """Make words of two to four syllables, always the same."""
    rng = random.Random("words")
    syllables = [one + other for one in "bdfgklmnprstvz" for other in "aeiou"]
    return ["".join(rng.choices(syllables, k=rng.randint(2, 4))) for _ in range(WORDS)]


def drawn(count: int) -> Iterator[Pair]:
    """Draw pairs; every fourth prompt is asked again."""
    rng, words = random.Random(f"pairs {count}"), vocabulary()
    texts = [" ".join(rng.choices(words, k=rng.randint(LENGTH // 2, 3 * LENGTH // 2))) for _ in range(5000)]
    for number in range(count):
        # Pieces of two texts: drawing every word anew would take longer than the fit.
        one, other, last = (rng.choice(texts) for _ in range(3))
        cut = rng.randint(0, 100)
        prompt = f"{number // 4 if number % 4 == 3 else number} {last[:80]}"
        yield Pair(prompt, f"{one[:cut]} {number} {other[cut:]}", f"{other[:cut]} {number} {one[cut:]}")


def make_backbone(folder: Path) -> None:
    """Make a tokenizer of 2,048 tokens, and a GPT-2 of two layers for it."""
    import torch
    from tokenizers import ByteLevelBPETokenizer
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    bpe = ByteLevelBPETokenizer()
    bpe.train_from_iterator(
        (pair.chosen for pair in drawn(2000)),
        vocab_size=2048,
        special_tokens=["<eos>", "<pad>"],
        show_progress=False,
    )
    fast: Any = PreTrainedTokenizerFast  # untyped
    tokenizer = fast(tokenizer_object=bpe._tokenizer, eos_token="<eos>", pad_token="<pad>")  # noqa: SLF001 - the wrapper keeps it
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"n_embd": 64, "n_layer": 2, "n_head": 2, "n_positions": 512}
    config = GPT2Config(vocab_size=len(tokenizer), eos_token_id=0, pad_token_id=1, bos_token_id=None, **sizes)
    GPT2LMHeadModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def fit(folder: Path, pairs: Path, output: Path) -> tuple[float, float]:
    """Fit for some steps, in this process: (its peak memory in MiB, seconds until the first step had ended)."""
    import lightning as L

    from rm_lightning.cli import main as command

    started = time.perf_counter()
    first: list[float] = []

    def on_train_batch_end(*_: object, **__: object) -> None:
        first.append(time.perf_counter() - started)

    L.LightningModule.on_train_batch_end = on_train_batch_end  # type: ignore[method-assign]
    # Few are held out, so that what is measured is neither their scoring nor the copy of them that is exported.
    share = HELD_OUT / count_lines(pairs)
    command(
        [
            "fit", f"--model.backbone={folder / 'backbone'}", f"--data.pairs={pairs}", f"--data.cache={folder / 'tokens'}",
            f"--data.validation={share}", f"--data.test={share}", f"--output={output}", "--trainer.max_epochs=1",
            f"--trainer.limit_train_batches={STEPS}", "--trainer.accelerator=cpu", "--trainer.logger=false",
        ]
    )  # fmt: skip
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, first[0]


def count_lines(path: Path) -> int:
    """Count the lines of a file."""
    with path.open("rb") as stream:
        return sum(1 for _ in stream)


def size(folder: Path) -> float:
    """Give the MiB of a folder's files."""
    return sum(file.stat().st_size for file in folder.iterdir()) / 2**20


def main(pairs: list[int] | None = None) -> None:
    """Print a table.

    Args:
        pairs: how many pairs, for each row; 10,000 and 1,000,000 when not given.
    """
    lines = [
        "| pairs | file, MiB | tokens on disk, MiB | tokens | peak, MiB | within 1.5 GiB | seconds until the first step |",
        "|---|---|---|---|---|---|---|",
    ]
    context = multiprocessing.get_context("spawn")
    for count in pairs or [10_000, 1_000_000]:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            make_backbone(folder / "backbone")
            file = folder / "pairs.jsonl"
            write_pairs(file, drawn(count))
            for state in ("made", "there"):
                with context.Pool(1, maxtasksperchild=1) as pool:
                    peak, first = pool.apply(fit, (folder, file, folder / state))
                told = [f"{count:,}", f"{file.stat().st_size / 2**20:.0f}", f"{size(folder / 'tokens'):.0f}", state]
                told += [f"{peak:.0f}", "yes" if peak <= LIMIT else "no", f"{first:.0f}"]
                lines.append(f"| {' | '.join(told)} |")
                say(json.dumps(told))
    print("\n".join(lines))


if __name__ == "__main__":
    typer.run(main)
