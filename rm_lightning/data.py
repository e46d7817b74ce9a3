"""Pairs as a LightningDataModule: split by prompt, tokenised once, batched with both answers of a pair together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path  # noqa: TC003 - LightningCLI reads the annotation
from typing import TYPE_CHECKING, NamedTuple

import lightning as L
import torch
from torch.utils.data import DataLoader

from lsplugin.preferences import read_pairs, split_by_prompt
from rm_lightning.backbone import load_config, load_tokenizer, window
from rm_lightning.defaults import default_backbone, default_pairs
from rm_lightning.errors import RewardModelError
from rm_lightning.packing import Packed, Tree, pack
from rm_lightning.text import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

    from lsplugin.preferences import Pair


class Example(NamedTuple):
    """One pair as token ids."""

    tree: Tree
    margin: float
    probability: float
    weight: float


class Batch(NamedTuple):
    """B pairs, each a prompt with two answers, the chosen one first.

    | field | shape | |
    |---|---|---|
    | texts | N = 2B | see `rm_lightning.packing.Packed`; scores of it are (2B,), chosen and rejected in turn |
    | margin | (B,) | by how much chosen should win |
    | probability | (B,) | that chosen is better |
    | weight | (B,) | how much the pair counts |
    | chosen_longer | (B,) | 1 where chosen has more tokens, 0.5 where both have as many |
    """

    texts: Packed
    margin: Tensor
    probability: Tensor
    weight: Tensor
    chosen_longer: Tensor


class PreferenceData(L.LightningDataModule):
    """Reads pairs.jsonl and holds out whole prompts for validation and for the test.

    Args:
        pairs: one preference a line; None takes the demo world's pairs, labelled by its simulated annotators.
        backbone: whose tokenizer and window count; the demo world's base model when None.
        join: what stands between a plain prompt and its answer; found out from the tokenizer when None.
        batch_size: pairs in a step; each is two texts.
        max_length: most tokens of prompt and answer; prompts are cut from the left, pairs with a longer answer are dropped
            and counted.
        validation: share of the prompts on which the best checkpoint is chosen.
        test: share of the prompts on which nothing is chosen and accuracy is reported.
        seed: of the split and of the order.
    """

    def __init__(
        self,
        pairs: Path | None = None,
        backbone: str | None = None,
        join: str | None = None,
        batch_size: int = 16,
        max_length: int = 1024,
        validation: float = 0.1,
        test: float = 0.1,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if validation <= 0 or test <= 0 or validation + test >= 1:
            raise RewardModelError(
                f"--data.validation {validation} and --data.test {test}: both must be above 0, and together below 1"
            )
        self.path = pairs
        self.backbone = backbone
        self.join = join
        self.batch_size = batch_size
        self.max_length = max_length
        self.shares = (validation, test)
        self.seed = seed
        self.encoder: TextEncoder | None = None
        self.counts: Counter[str] = Counter()
        self.test_pairs: list[Pair] = []
        self._examples: dict[str, list[Example]] = {}

    def setup(self, stage: str) -> None:  # noqa: ARG002 - every stage needs the same split
        """Read, split and tokenise; `counts` then says where every pair went."""
        if self._examples:
            return
        name = self.backbone or default_backbone()
        longest = min(self.max_length, window(load_config(name)) or self.max_length)
        self.encoder = TextEncoder(load_tokenizer(name), join=self.join, max_length=longest)
        path = self.path or default_pairs(self.seed)
        pairs = list(read_pairs(path))
        usable = [pair for pair in pairs if not self._drop(pair)]
        self.counts["pairs"] = len(pairs)
        for part, rows in self._split(usable).items():
            if not rows:
                raise RewardModelError(
                    f"{path}: no pairs are left for {part} ({len(usable)} of {len(pairs)} are usable); more prompts are needed"
                )
            self._examples[part] = [self._encode(pair) for pair in rows]
            self.counts[part] = len(rows)
            if part == "test":
                self.test_pairs = rows

    def _split(self, pairs: list[Pair]) -> dict[str, list[Pair]]:
        validation, test = self.shares
        rest, tested = split_by_prompt(pairs, [pair.prompt for pair in pairs], held_out=test, seed=self.seed)
        train, validated = split_by_prompt(
            rest, [pair.prompt for pair in rest], held_out=validation / (1 - test), seed=self.seed + 1
        )
        return {"train": train, "validation": validated, "test": tested}

    def train_dataloader(self) -> DataLoader[Batch]:
        """Batches in a new seeded order every epoch."""
        return self._loader("train", shuffle=True)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Batches of the prompts that choose the checkpoint."""
        return self._loader("validation")

    def test_dataloader(self) -> DataLoader[Batch]:
        """Batches of the prompts that choose nothing."""
        return self._loader("test")

    def _loader(self, name: str, *, shuffle: bool = False) -> DataLoader[Batch]:
        generator = torch.Generator().manual_seed(self.seed)
        return DataLoader(
            self._examples[name],  # type: ignore[arg-type]
            batch_size=self.batch_size,
            shuffle=shuffle,
            generator=generator,
            collate_fn=self._collate,
        )

    def _drop(self, pair: Pair) -> bool:
        assert self.encoder is not None
        if pair.chosen == pair.rejected:
            self.counts["dropped: both answers are identical"] += 1
            return True
        longest = max(len(self.encoder.answer(text, pair.prompt)) for text in (pair.chosen, pair.rejected))
        if longest > self.encoder.max_length:
            self.counts[f"dropped: an answer is longer than {self.encoder.max_length} tokens"] += 1
            return True
        return False

    def _encode(self, pair: Pair) -> Example:
        assert self.encoder is not None
        return Example(
            tree=self.encoder.tree(pair.prompt, [pair.chosen, pair.rejected]),
            margin=pair.margin or 0.0,
            probability=1.0 if pair.probability is None else pair.probability,
            weight=1.0 if pair.weight is None else pair.weight,
        )

    def _collate(self, examples: Sequence[Example]) -> Batch:
        assert self.encoder is not None
        trees = [example.tree for example in examples]
        longer = [len(tree.answers[0]) - len(tree.answers[1]) for tree in trees]
        return Batch(
            pack(trees, pad=int(self.encoder.tokenizer.pad_token_id)),
            margin=torch.tensor([example.margin for example in examples]),
            probability=torch.tensor([example.probability for example in examples]),
            weight=torch.tensor([example.weight for example in examples]),
            chosen_longer=0.5 * (1 + torch.tensor(longer).sign().float()),
        )
