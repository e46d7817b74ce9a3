"""Preferences as a LightningDataModule: read from any file, tokenised once, split by prompt, batched with prompts shared."""

from __future__ import annotations

from collections import Counter
from pathlib import Path  # noqa: TC003 - LightningCLI reads the annotation
from typing import TYPE_CHECKING, NamedTuple

import lightning as L
import numpy as np
import torch

from lsplugin import console
from rm_lightning.backbone import load_config, load_tokenizer, window
from rm_lightning.batches import Batches, Dealt, Share, Size
from rm_lightning.defaults import default_backbone, default_pairs
from rm_lightning.errors import RewardModelError
from rm_lightning.packing import Packed, pack
from rm_lightning.sources import files_of, read_preferences
from rm_lightning.store import Store, open_store
from rm_lightning.text import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import numpy.typing as npt
    from torch import Tensor

    from lsplugin.preferences import Pair

PARTS = ("train", "validation", "test")
PADDING = -1
"""The row of a comparison that only fills up a batch."""


class Batch(NamedTuple):
    """N answers behind their prompts, and C comparisons of them.

    | field | shape | |
    |---|---|---|
    | texts | N | see `rm_lightning.packing.Packed` |
    | better | (C,) | which answer won |
    | worse | (C,) | which answer lost |
    | probability | (C,) | that `better` is the better one; one half is a tie |
    | margin | (C,) | by how much it should win; NaN where nobody was asked |
    | weight | (C,) | how much the comparison counts |
    | longer | (C,) | tokens of `better` minus tokens of `worse` |
    | prompt | (C,) | a hash of the prompt, int64 |
    | row | (C,) | which comparison of the data it is; `PADDING` where it must not count |
    """

    texts: Packed
    better: Tensor
    worse: Tensor
    probability: Tensor
    margin: Tensor
    weight: Tensor
    longer: Tensor
    prompt: Tensor
    row: Tensor


class Part(NamedTuple):
    """Examples of one store: their places."""

    store: Store
    places: npt.NDArray[np.int64]


class PreferenceData(L.LightningDataModule):
    """Reads preferences and holds out whole prompts for validation and for the test.

    Args:
        pairs: one file or several: pairs.jsonl, TRL's or HH's rows, a Label Studio export, .arrow, .parquet or a folder of those;
            None takes the demo world's pairs, labelled by its simulated annotators.
        validation_pairs: files to choose the best checkpoint on, instead of a share of `pairs`.
        test_pairs: files to report accuracy on, instead of a share of `pairs`.
        backbone: whose tokenizer and window count; the demo world's base model when None.
        join: what stands between a plain prompt and its answer; found out from the tokenizer when None.
        batch_size: comparisons in a step of one process.
        tokens_per_batch: about how many tokens a step of one process has, instead of `batch_size`; a shared prompt counts once.
        max_length: most tokens of prompt and answer; prompts are cut from the left, comparisons with a longer answer are dropped
            and counted.
        validation: share of the prompts on which the best checkpoint is chosen; 0 keeps the last one.
        test: share of the prompts on which nothing is chosen and accuracy is reported.
        balance: with `prompts`, the twos of answers of one ranking share one weight, so that no prompt counts twice (Ouyang et
            al. 2022, arXiv 2203.02155, section 3.5), while every vote on the same two counts; with `pairs`, each counts.
        seed: of the split and of the order.
        cache: folder of the tokens, which are made once; in the user's cache when None.

    Attributes:
        counts: where every preference went.
        test_up_to: the prompts of `pairs` whose `split_places` is at most this are the test's; None where none are drawn.
    """

    def __init__(
        self,
        pairs: list[str] | str | None = None,
        validation_pairs: list[str] | str | None = None,
        test_pairs: list[str] | str | None = None,
        backbone: str | None = None,
        join: str | None = None,
        batch_size: int = 16,
        tokens_per_batch: int | None = None,
        max_length: int = 1024,
        validation: float = 0.1,
        test: float = 0.1,
        balance: str = "prompts",
        seed: int = 0,
        cache: Path | None = None,
    ) -> None:
        super().__init__()
        _check(batch_size, tokens_per_batch, max_length, validation, test, balance)
        self.named: dict[str, list[str] | str | None] = {
            "train": pairs,
            "validation": validation_pairs,
            "test": test_pairs,
        }
        self.backbone = backbone
        self.join = join
        self.size = Size(batch_size, tokens_per_batch)
        self.max_length = max_length
        self.shares = {
            "validation": 0.0 if validation_pairs is not None else validation,
            "test": 0.0 if test_pairs is not None else test,
        }
        self.balanced = balance == "prompts"
        self.seed = seed
        self.cache = cache
        self.counts: Counter[str] = Counter()
        self.notes: Counter[str] = Counter()
        self.files: dict[str, list[str]] = {}
        self.test_up_to: int | None = None
        self._encoder: TextEncoder | None = None
        self._opened: dict[str, Store] = {}
        self._parts: dict[str, Part] = {}

    @property
    def encoder(self) -> TextEncoder:
        """What makes tokens of texts."""
        if self._encoder is None:
            name = self.backbone or default_backbone()
            longest = min(self.max_length, window(load_config(name)) or self.max_length)
            self._encoder = TextEncoder(load_tokenizer(name), join=self.join, max_length=longest)
        return self._encoder

    def prepare_data(self) -> None:
        """Make the tokens, in one process of each machine."""
        self._stores()

    def setup(self, stage: str) -> None:
        """Open the tokens and split them; `counts` then says where every preference went."""
        if self._parts:
            return
        stores = self._stores()
        self.notes = sum((store.notes for store in stores.values()), Counter())
        self.counts = Counter(pairs=sum(store.counts["read"] for store in stores.values()))
        for store in stores.values():
            self.counts.update({reason: n for reason, n in store.counts.items() if reason != "read" and n})
        self._parts = {name: Part(stores[name], np.arange(len(stores[name]))) for name in PARTS if name in stores}
        if "train" in stores:
            self._split(stores["train"])
        for name, (store, places) in self._parts.items():
            self.counts[name] = int(store.comparisons[places].sum())
        self._check_parts(stage)

    def train_dataloader(self) -> Batches[Batch]:
        """Batches in a new seeded order every epoch."""
        return self._batches("train", seed=self.seed, done=self._done)

    def val_dataloader(self) -> Batches[Batch] | list[Batch]:
        """Batches of the prompts that choose the checkpoint."""
        return self._batches("validation") if "validation" in self._parts else []

    def test_dataloader(self) -> Batches[Batch]:
        """Batches of the prompts that choose nothing."""
        return self._batches("test")

    def predict_dataloader(self) -> Batches[Batch]:
        """Batches of all preferences in `pairs`, whichever part they are in."""
        store = self._parts["train"].store
        return self._batches("train", everything=Part(store, np.arange(len(store))))

    def has(self, part: str) -> bool:
        """Say whether there is a part of this name."""
        return part in self._parts

    def test_rows(self) -> Iterator[Pair]:
        """Read the preferences of the test part once more from their files."""
        part = self._parts["test"]
        examples = (part.store[place] for place in part.places.tolist())
        wanted = {(example.file, number) for example in examples for number in example.number}
        files = self.files["test" if "test" in self.files else "train"]
        for row in read_preferences(files, Counter()):
            if (row.file, row.number) in wanted:
                yield row.pair

    def describe(self, part: str, row: int) -> dict[str, str]:
        """Give one comparison of a part for a person to read, as the model read it.

        Returns:
            where it stands, prompt, chosen, rejected.
        """
        store = self._parts[part].store
        place = int(np.searchsorted(np.cumsum(store.comparisons), row, side="right"))
        example = store[place]
        number = row - int(store.comparisons[:place].sum())
        files = self.files[part if part in self.files else "train"]
        texts = (example.tree.prompt, *(example.tree.answers[i[number]] for i in (example.better, example.worse)))
        decode = self.encoder.tokenizer.decode
        prompt, chosen, rejected = (str(decode(ids, skip_special_tokens=True)) for ids in texts)
        return {
            "where": f"{files[example.file]}, line {example.number[number]}",
            "prompt": prompt,
            "chosen": chosen,
            "rejected": rejected,
        }

    def _stores(self) -> dict[str, Store]:
        if self._opened:
            return self._opened
        named: dict[str, list[str] | str | None] = dict(self.named)
        if all(paths is None for paths in named.values()):
            named["train"] = str(default_pairs(self.seed))
        for part, paths in named.items():
            if paths is None:
                continue
            self.files[part] = files_of([paths] if isinstance(paths, str) else paths)
            with console.progress(f"reading {', '.join(self.files[part])[:60]}") as tell:
                self._opened[part] = open_store(self.files[part], self.encoder, folder=self.cache, tell=tell)
        return self._opened

    def _split(self, store: Store) -> None:
        """Deal whole prompts to the parts by a keyed hash, so that neither order nor repetition of rows changes the split."""
        keys, whose = np.unique(store.keys, return_inverse=True)
        places = split_places(keys, self.seed)
        drawn = np.argsort(places, kind="stable")
        part_of = np.zeros(len(keys), dtype=np.int8)
        at = 0
        for number, name in ((2, "test"), (1, "validation")):
            count = round(self.shares[name] * len(keys))
            part_of[drawn[at : at + count]] = number
            at += count
            if name == "test" and count:
                self.test_up_to = int(places[drawn[count - 1]])
        for number, name in enumerate(PARTS):
            if name == "train" or self.shares[name]:
                self._parts[name] = Part(store, np.flatnonzero(part_of[whose] == number))

    def _check_parts(self, stage: str) -> None:
        names = ", ".join(file for files in self.files.values() for file in files)
        usable = sum(self.counts[name] for name in PARTS)
        reasons = "".join(f"; {count} {reason}" for reason, count in self.counts.items() if "dropped" in reason)
        needed = {"fit": "train", "validate": "validation", "test": "test"}.get(stage, "train")
        for name, part in self._parts.items():
            asked = stage == "fit" or name == needed
            if asked and not len(part.store if stage == "predict" else part.places):
                raise RewardModelError(
                    f"{names}: no pairs are left for {name} ({usable} of {self.counts['pairs']} are usable{reasons}); "
                    "more prompts are needed"
                )
        if needed not in self._parts:
            raise RewardModelError(
                f"there is nothing for {needed}: name files with --data.{'pairs' if needed == 'train' else needed + '_pairs'}"
            )
        if "train" in self._parts:
            trained = self._parts["train"].store.keys[self._parts["train"].places]
            for name in ("validation", "test"):
                if name in self._parts and self.named[name] is not None:
                    self.notes[f"examples of {name} whose prompt is trained on, too"] = int(
                        np.isin(self._parts[name].store.keys, trained).sum()
                    )

    def _batches(
        self, name: str, *, seed: int | None = None, everything: Part | None = None, done: Callable[[], int] = lambda: 0
    ) -> Batches[Batch]:
        store, places = everything or self._parts[name]
        rows = np.cumsum(store.comparisons) - store.comparisons

        def make(dealt: Sequence[Dealt]) -> Batch:
            return self._collate(store, [item._replace(place=int(places[item.place])) for item in dealt], rows)

        return Batches(store.tokens[places], store.comparisons[places], self.size, self._share(), seed, make, done)

    def _done(self) -> int:
        return 0 if self.trainer is None else int(self.trainer.fit_loop.epoch_loop.batch_progress.current.ready)

    def _share(self) -> Share:
        told = getattr(getattr(self.trainer, "strategy", None), "distributed_sampler_kwargs", None)
        return Share(told["rank"], told["num_replicas"]) if told else Share()

    def _collate(self, store: Store, dealt: Sequence[Dealt], rows: npt.NDArray[np.int64]) -> Batch:
        examples = [store[item.place] for item in dealt]
        columns: dict[str, list[float]] = {name: [] for name in Batch._fields if name != "texts"}
        answers = 0
        for item, example in zip(dealt, examples, strict=True):
            count = len(example.better)
            lengths = [len(answer) for answer in example.tree.answers]
            twos = len({frozenset(two) for two in zip(example.better, example.worse, strict=True)})
            columns["better"] += [answers + place for place in example.better]
            columns["worse"] += [answers + place for place in example.worse]
            columns["probability"] += example.probability
            columns["margin"] += example.margin
            columns["weight"] += [item.real * weight / (twos if self.balanced else 1) for weight in example.weight]
            columns["longer"] += [lengths[a] - lengths[b] for a, b in zip(example.better, example.worse, strict=True)]
            columns["prompt"] += [example.key] * count
            columns["row"] += [int(rows[item.place]) + place if item.real else PADDING for place in range(count)]
            answers += len(lengths)
        texts = pack([example.tree for example in examples], pad=int(self.encoder.tokenizer.pad_token_id))
        return Batch(texts, **{name: torch.tensor(column) for name, column in columns.items()})


def _check(
    batch_size: int, tokens_per_batch: int | None, max_length: int, validation: float, test: float, balance: str
) -> None:
    if validation < 0 or test < 0 or validation + test >= 1:
        raise RewardModelError(
            f"--data.validation {validation} and --data.test {test}: expected shares of 0 or more, together below 1"
        )
    if balance not in {"prompts", "pairs"}:
        raise RewardModelError(f"--data.balance {balance}: expected prompts or pairs")
    for name, value in (("batch_size", batch_size), ("tokens_per_batch", tokens_per_batch), ("max_length", max_length)):
        if value is not None and value < 1:
            raise RewardModelError(f"--data.{name} {value}: expected 1 or more")


def split_places(keys: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.uint64]:
    """Give each prompt its place in the order in which prompts are drawn for the parts; the lowest are the test's.

    Args:
        keys: `rm_lightning.store.prompt_key` of N prompts, (N,).
        seed: of the split.
    """
    key = np.random.default_rng(seed).integers(2**63, dtype=np.uint64)
    return _mixed(keys.astype(np.uint64) ^ key)


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Spread 64-bit values so that their order is as good as random (the finalizer of SplitMix64; Steele et al. 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
