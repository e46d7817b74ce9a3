"""Training speed of the reward model beside TRL's RewardTrainer: the same backbone, tokenizer, pairs and learning rate.

    RLHF_DATA=../shared/data python benchmarks/rm_vs_trl.py --pairs 480

A GPT-2 of 7 million parameters and a byte-level tokenizer are made here from the texts; harmless-base pairs of at most 512
tokens an answer, float32, two threads. Each contender trains on the same pairs in a process of its own, one after the other, in
rounds; timed are the steps after the second. Accuracy is that of the exported model on pairs of other prompts, measured by
plain code for all. Real tokens are those that have to be read: for all contenders a prompt and its two answers, each once.

On a GPU, with a Llama shape in bf16 and what share of the GPU's peak that is (MFU):

    RLHF_DATA=../shared/data python benchmarks/rm_vs_trl.py --shape llama-1b --gpu --pairs 1280
"""

from __future__ import annotations

import json
import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hh import hh_pairs

from lsplugin.preferences import Pair, read_pairs, split_by_prompt, write_pairs

if TYPE_CHECKING:
    from collections.abc import Callable

LENGTH = 512
SHAPES: dict[str, dict[str, Any]] = {
    "gpt2-7m": {"n_embd": 256, "n_layer": 6, "n_head": 4, "n_positions": LENGTH},
    "llama-100m": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 12, "num_attention_heads": 12},
    "llama-1b": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 20, "num_attention_heads": 16},
}
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 operations a second, as the makers state them."""
RATE = 3e-4
HELD_OUT = 400
SKIPPED = 2  # steps that warm caches up


def make_backbone(folder: Path, texts: list[str], shape: str) -> None:
    """Make a tokenizer of 8,192 tokens from the texts, and a model of random weights for it."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<eos>", "<pad>"]
    raw.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=8192, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    fast: Any = PreTrainedTokenizerFast  # untyped
    tokenizer = fast(tokenizer_object=raw, eos_token="<eos>", pad_token="<pad>")
    torch.manual_seed(0)
    kind: Any = GPT2Config if shape.startswith("gpt2") else LlamaConfig
    config = kind(vocab_size=len(tokenizer), eos_token_id=0, pad_token_id=1, bos_token_id=None, **SHAPES[shape])
    maker: Any = AutoModelForCausalLM  # untyped
    maker.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def ours(
    folder: Path, output: Path, steps: int, *, batch: int, gpu: bool, share: bool, attention: str | None = None
) -> list[float]:
    """Train with our module; give the time at which each step ended."""
    import lightning as L

    from rm_lightning.data import PreferenceData
    from rm_lightning.module import RewardModel
    from rm_lightning.quiet import quiet

    quiet()
    ends: list[float] = []

    class Clock(L.Callback):
        def on_train_batch_end(self, *_: object) -> None:
            ends.append(time.perf_counter())

    L.seed_everything(0, verbose=False)
    backbone = str(folder / "backbone")
    model = RewardModel(backbone, learning_rate=RATE, share_prompts=share, attention=attention if gpu else None)
    data = PreferenceData(
        str(folder / "train.jsonl"), backbone=backbone, batch_size=batch, max_length=LENGTH, validation=0, test=0,
        cache=folder / "cache",
    )  # fmt: skip
    trainer = L.Trainer(
        max_steps=steps, accelerator="gpu" if gpu else "cpu", devices=1, precision="bf16-mixed" if gpu else "32-true",
        gradient_clip_val=1.0, logger=False, limit_val_batches=0,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[Clock()],
    )  # fmt: skip
    trainer.fit(model, data)
    model.export(output)
    return ends


def trl(folder: Path, output: Path, steps: int, *, batch: int, gpu: bool, **settings: object) -> list[float]:
    """Train with TRL's RewardTrainer; give the time at which each step ended."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, AutoTokenizer, TrainerCallback
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    from lsplugin.formats import rows_for

    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *_: object, **__: object) -> None:
            ends.append(time.perf_counter())

    columns = ("prompt", "chosen", "rejected")
    made = [{name: row[name] for name in columns} for row in rows_for("trl", read_pairs(folder / "train.jsonl"))]
    rows = Dataset.from_list([row | {"length": sum(map(len, row.values()))} for row in made])
    tokenizer = AutoTokenizer.from_pretrained(folder / "backbone")
    model = AutoModelForSequenceClassification.from_pretrained(folder / "backbone", num_labels=1)
    fixed: dict[str, Any] = {"learning_rate": RATE, "max_length": LENGTH, "bf16": gpu, "use_cpu": not gpu, "seed": 0}
    quiet = {
        "save_strategy": "no",
        "logging_strategy": "no",
        "disable_tqdm": True,
        "output_dir": str(output / "trainer"),
    }
    chosen: dict[str, Any] = {**fixed, **quiet, **settings, "max_steps": steps, "per_device_train_batch_size": batch}
    config = RewardConfig(**chosen)
    trainer = RewardTrainer(
        model=model, args=config, train_dataset=rows, processing_class=tokenizer, callbacks=[Clock()]
    )
    trainer.train()
    model.save_pretrained(output)
    tokenizer.save_pretrained(output)
    return ends


CONTENDERS: dict[str, tuple[int, Callable[..., list[float]], dict[str, Any]]] = {
    "ours": (8, ours, {"share": True}),
    "ours, each answer behind a prompt of its own": (8, ours, {"share": False}),
    "TRL as it comes, in float32": (8, trl, {}),
    "TRL, no checkpointing, by length": (
        16,
        trl,
        {"gradient_checkpointing": False, "train_sampling_strategy": "group_by_length", "remove_unused_columns": False},
    ),
}

ON_GPU: dict[str, tuple[int, Callable[..., list[float]], dict[str, Any]]] = {
    "ours, FlexAttention": (32, ours, {"share": True, "attention": "flex_attention"}),
    "ours, batches of 32": (32, ours, {"share": True}),
}


def measure(name: str, folder: Path, pairs: int, gpu: bool) -> tuple[float, float, float]:  # noqa: FBT001 - called by name of process
    """Run one contender: (pairs a second, peak memory in MiB, held-out accuracy)."""
    import torch

    from rm_lightning.scorer import RewardScorer

    torch.set_num_threads(2)
    batch, train, settings = (CONTENDERS | ON_GPU)[name]
    output = folder / "out"
    ends = train(folder, output, pairs // batch, batch=batch, gpu=gpu, **settings)
    speed = batch * (len(ends) - 1 - SKIPPED) / (ends[-1] - ends[SKIPPED])
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = torch.cuda.max_memory_allocated() / 2**20 if gpu else int(status.partition("VmHWM:")[2].split()[0]) / 1024
    held_out = list(read_pairs(folder / "test.jsonl"))
    score = RewardScorer(str(output), device="cuda" if gpu else "cpu")
    prompts = [pair.prompt for pair in held_out]
    chosen, rejected = (
        score(prompts, texts) for texts in ([p.chosen for p in held_out], [p.rejected for p in held_out])
    )
    return speed, peak, float((chosen > rejected).float().mean())


def floor(folder: Path, pairs: list[Pair], gpu: bool) -> tuple[float, float, float]:  # noqa: FBT001
    """Give what arithmetic alone allows: (pairs a second, floating-point operations a second, distinct tokens a pair).

    On a GPU the operations are what its maker states, so that the share of them is the MFU; on a CPU they are measured.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    from rm_lightning.backbone import load_tokenizer
    from rm_lightning.text import TextEncoder

    torch.set_num_threads(2)
    encoder = TextEncoder(load_tokenizer(str(folder / "backbone")))
    tokens = statistics.mean(len(encoder.tree(pair.prompt, [pair.chosen, pair.rejected])) for pair in pairs)
    model = AutoModelForSequenceClassification.from_pretrained(folder / "backbone", num_labels=1)
    weights = sum(
        weight.numel()
        for name, weight in model.named_parameters()
        if not any(table in name for table in ("wte", "wpe", "embed_tokens"))
    )
    if gpu:
        device = torch.cuda.get_device_name()
        rate = next(peak for name, peak in PEAKS.items() if name in device)
        return rate / (tokens * 6 * weights), rate, tokens
    one, other = torch.rand(2048, 2048), torch.rand(2048, 2048)
    rates = []
    for _ in range(7):
        start = time.perf_counter()
        torch.mm(one, other)
        rates.append(2 * 2048**3 / (time.perf_counter() - start))
    rate = statistics.median(rates)
    return rate / (tokens * 6 * weights), rate, tokens


def main(pairs: int = 480, rounds: int = 1, shape: str = "gpt2-7m", gpu: bool = False) -> None:  # noqa: FBT001, FBT002 - options
    """Print a table."""
    from rm_lightning.backbone import load_tokenizer
    from rm_lightning.text import TextEncoder

    data = Path(os.environ.get("RLHF_DATA", "../shared/data"))
    found, _ = hh_pairs(data / "prefs" / "hh-rlhf" / "harmless-base.test.jsonl.gz")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_backbone(folder / "backbone", [f"{pair.prompt} {pair.chosen} {pair.rejected}" for pair in found], shape)
        encoder = TextEncoder(load_tokenizer(str(folder / "backbone")), max_length=1 << 20)
        fitting = [p for p in found if max(len(encoder(p.prompt, text)) for text in (p.chosen, p.rejected)) <= LENGTH]
        train, test = split_by_prompt(fitting, [p.prompt for p in fitting], held_out=HELD_OUT / len(fitting), seed=0)
        write_pairs(folder / "train.jsonl", train)
        write_pairs(folder / "test.jsonl", test)
        context = multiprocessing.get_context("spawn")
        with context.Pool(1, maxtasksperchild=1) as pool:
            chosen = CONTENDERS | (ON_GPU if gpu else {})
            seen: dict[str, list[tuple[float, float, float]]] = {name: [] for name in chosen}
            for _ in range(rounds):
                for name, rows in seen.items():
                    rows.append(pool.apply(measure, (name, folder, pairs, gpu)))
                    print(json.dumps({name: rows[-1]}), flush=True)
            best, rate, tokens = pool.apply(floor, (folder, train, gpu))
    print(f"\n{len(train)} pairs to train on, {len(test)} held out; {tokens:.0f} real tokens a pair;")
    print(f"matrix products at {rate / 1e9:.0f} billion operations a second allow {best:.1f} pairs/s\n")
    print(
        "| | pairs/s | tokens/s | of what arithmetic allows | peak MiB | accuracy on held-out pairs |\n|---|---|---|---|---|---|"
    )
    for name, rows in seen.items():
        speed, peak, accuracy = (statistics.median(column) for column in zip(*rows, strict=True))
        print(f"| {name} | {speed:.1f} | {speed * tokens:.0f} | {speed / best:.2f} | {peak:.0f} | {accuracy:.3f} |")


if __name__ == "__main__":
    import typer

    typer.run(main)
