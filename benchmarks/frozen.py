"""A cheap reward model for benchmarks that need hundreds of fits: a frozen MiniLM, read once, under a linear head.

The features of an answer are the mean of MiniLM's last hidden states over `prompt, answer` (384 numbers, all-MiniLM-L6-v2 as in
rm_real.py) and the logarithm of the answer's length in characters. The head is a ridge logistic regression on differences of
features without an intercept, which is the Bradley-Terry model of a linear score. Features are kept in the user's cache.
"""

from __future__ import annotations

import math
import os
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from hh import hh_pairs
from rm_real import backbone, ukp_pairs

from lsplugin.files import atomic_file
from lsplugin.preferences import prompt_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lsplugin.preferences import Pair

Floats = npt.NDArray[np.float64]

TOKENS = 128
RIDGES = (3.0, 10.0, 30.0, 100.0, 300.0)
"""Penalties that cross-validation chooses from, for features of variance 1."""
FOLDS = 5
DATA = ("hh", "ukp")


class Compared(NamedTuple):
    """C comparisons: features of chosen minus those of rejected, (C, F), and a number for each one's group, (C,)."""

    x: Floats
    group: npt.NDArray[np.int64]


def real(data: str) -> Compared:
    """Read `hh`, whose groups are its prompts, or `ukp`, whose groups are its debates; features have variance 1."""
    prefs = Path(os.environ.get("RLHF_DATA", "../shared/data")) / "prefs"
    if data == "hh":
        pairs = hh_pairs(prefs / "hh-rlhf" / "harmless-base.test.jsonl.gz")[0]
        groups = [prompt_text(pair.prompt) for pair in pairs]
    else:
        pairs = ukp_pairs(prefs / "ukpconvarg1" / "ukpconvarg1_strict.pairs.jsonl.gz")
        groups = [str(pair.meta["debate"]) for pair in pairs]
    x = differences(pairs)
    return Compared(x / x.std(axis=0).clip(1e-9), np.unique(groups, return_inverse=True)[1].astype(np.int64))


def differences(pairs: Sequence[Pair]) -> Floats:
    """Features of chosen minus those of rejected, (C, F)."""
    texts = list(dict.fromkeys((_last(pair), text) for pair in pairs for text in (pair.chosen, pair.rejected)))
    place = {text: number for number, text in enumerate(texts)}
    found = features(texts)
    chosen = found[[place[_last(pair), pair.chosen] for pair in pairs]]
    return np.asarray(chosen - found[[place[_last(pair), pair.rejected] for pair in pairs]])


def _last(pair: Pair) -> str:
    """Give the turn that is answered."""
    return pair.prompt if isinstance(pair.prompt, str) else pair.prompt[-1]["content"]


def features(texts: Sequence[tuple[str, str]]) -> Floats:
    """Features of N (prompt, answer), (N, F); made once."""
    import platformdirs

    key = blake2b(repr((texts, TOKENS)).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    file = platformdirs.user_cache_path("label-studio-rlhf") / "frozen" / f"{key}.npy"
    if not file.is_file():
        found = _embedded(texts)
        with atomic_file(file) as temporary, temporary.open("wb") as stream:
            np.save(stream, found)
    lengths = np.array([[math.log(1 + len(answer))] for _, answer in texts])
    return np.hstack([np.load(file), lengths])


def _embedded(texts: Sequence[tuple[str, str]]) -> Floats:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(backbone())
    model = AutoModel.from_pretrained(backbone()).eval()
    found = np.zeros((len(texts), model.config.hidden_size))
    order = sorted(range(len(texts)), key=lambda place: len(texts[place][0]) + len(texts[place][1]))
    for at in range(0, len(order), 32):
        places = order[at : at + 32]
        part = [texts[place] for place in places]
        ids = tokenizer(
            [prompt[-200:] for prompt, _ in part], [answer for _, answer in part], truncation="only_second",
            max_length=TOKENS, padding=True, return_tensors="pt",
        )  # fmt: skip
        with torch.inference_mode():
            states = model(**ids).last_hidden_state  # (n, T, 384)
        mask = ids["attention_mask"][..., None]
        found[places] = ((states * mask).sum(1) / mask.sum(1)).double().numpy()
    return found


def fit(x: Floats, weight: Floats, ridge: float) -> Floats:
    """Fit the head, (F,), by Newton's method: least sum_i w_i log(1 + exp(-x_i b)) + ridge / 2 |b|^2.

    Args:
        x: features of chosen minus those of rejected, (C, F).
        weight: how much each comparison counts, (C,).
        ridge: strength of the penalty.
    """
    if len(x) < x.shape[1]:  # with x = u s v, b = v' a is found in the C dimensions that the data span
        u, s, v = np.linalg.svd(x, full_matrices=False)
        return np.asarray(v.T @ fit(u * s, weight, ridge))
    b = np.zeros(x.shape[1])
    for _ in range(25):
        wrong = 0.5 * (1 - np.tanh(x @ b / 2))  # 1 - p
        gradient = ridge * b - x.T @ (weight * wrong)
        hessian = (x * (weight * wrong * (1 - wrong))[:, None]).T @ x + ridge * np.eye(len(b))
        step = np.linalg.solve(hessian, gradient)
        b = b - step
        if np.abs(step).max() < 1e-6:
            break
    return b


def best_ridge(x: Floats, seed: int) -> float:
    """Choose the penalty with the least log-loss on folds that were not fitted."""
    fold = np.random.default_rng(seed).permutation(len(x)) % FOLDS
    ones = np.ones(len(x))

    def loss(ridge: float) -> float:
        parts = (
            np.logaddexp(0, -(x[fold == k] @ fit(x[fold != k], ones[fold != k], ridge * (1 - 1 / FOLDS)))).sum()
            for k in range(FOLDS)
        )
        return float(sum(parts))

    return min(RIDGES, key=loss)


def accuracy(margins: Floats) -> Floats:
    """Say of each comparison whether it is right; no difference counts half; (C,)."""
    return np.asarray((np.sign(margins) + 1) / 2)
