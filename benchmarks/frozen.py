"""Cheap reward models for benchmarks that need hundreds of fits: features made once, under a linear head.

Of `ukp`, the features of an answer are the mean of MiniLM's last hidden states over `prompt, answer` (384 numbers,
all-MiniLM-L6-v2 as in rm_real.py); of `hh` and `polarity`, which of the 150 most frequent words it has. To both comes the
logarithm of its length in characters. The head is a ridge logistic regression on differences of features without an intercept,
which is the Bradley-Terry model of a linear score. Embeddings are kept in the user's cache.
"""

from __future__ import annotations

import math
import os
import zipfile
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt
from hh import hh_pairs
from rm_real import backbone, ukp_pairs

from lsplugin.files import atomic_file
from lsplugin.preferences import Pair, prompt_text

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Floats = npt.NDArray[np.float64]

TOKENS = 128
RIDGES = (3.0, 10.0, 30.0, 100.0, 300.0)
"""Penalties that cross-validation chooses from, for features of variance 1."""
FOLDS = 5


class Compared(NamedTuple):
    """C comparisons.

    Attributes:
        x: features of chosen minus those of rejected, (C, F), of variance 1.
        prompt: a number for each one's prompt, (C,).
        debate: a number for each one's debate, (C,); that of the prompt where there are none.
    """

    x: Floats
    prompt: npt.NDArray[np.int64]
    debate: npt.NDArray[np.int64]


@cache
def real(data: str) -> Compared:
    """Read `hh`; `ukp`, whose debates have two prompts each; or `polarity`, good beside bad sentences of film reviews."""
    folder = Path(os.environ.get("RLHF_DATA", "../shared/data"))
    if data == "hh":
        pairs = hh_pairs(folder / "prefs" / "hh-rlhf" / "harmless-base.test.jsonl.gz")[0]
    elif data == "ukp":
        pairs = ukp_pairs(folder / "prefs" / "ukpconvarg1" / "ukpconvarg1_strict.pairs.jsonl.gz")
    else:
        pairs = polarity_pairs(folder / "text" / "sentence_polarity" / "sentence_polarity.zip")
    x = differences(pairs, embedded if data == "ukp" else has_words)
    prompts = [prompt_text(pair.prompt) for pair in pairs]
    debates = [str(pair.meta.get("debate", prompt)) for pair, prompt in zip(pairs, prompts, strict=True)]
    return Compared(x / x.std(axis=0).clip(1e-9), _numbered(prompts), _numbered(debates))


def polarity_pairs(file: Path, count: int = 3000) -> list[Pair]:
    """Make comparisons of a positive and a negative sentence of Pang and Lee (2005), each a prompt of its own."""
    with zipfile.ZipFile(file) as packed:
        good, bad = (
            packed.read(f"sentence_polarity/rt-polarity.{kind}").decode("latin-1").splitlines()
            for kind in ("pos", "neg")
        )
    rng = np.random.default_rng(0)
    order = zip(rng.permutation(len(good))[:count], rng.permutation(len(bad))[:count], strict=True)
    return [Pair(f"Which is kinder? ({number})", good[one], bad[other]) for number, (one, other) in enumerate(order)]


def _numbered(names: Sequence[str]) -> npt.NDArray[np.int64]:
    return np.asarray(np.unique(names, return_inverse=True)[1], dtype=np.int64)


def differences(pairs: Sequence[Pair], features: Callable[[Sequence[tuple[str, str]]], Floats]) -> Floats:
    """Features of chosen minus those of rejected, (C, F), with the difference of the logarithms of their lengths."""
    texts = list(dict.fromkeys((_last(pair), text) for pair in pairs for text in (pair.chosen, pair.rejected)))
    place = {text: number for number, text in enumerate(texts)}
    lengths = np.array([[math.log(1 + len(answer))] for _, answer in texts])
    found = np.hstack([features(texts), lengths])
    chosen = found[[place[_last(pair), pair.chosen] for pair in pairs]]
    return np.asarray(chosen - found[[place[_last(pair), pair.rejected] for pair in pairs]])


def _last(pair: Pair) -> str:
    """Give the turn that is answered."""
    return pair.prompt if isinstance(pair.prompt, str) else pair.prompt[-1]["content"]


def has_words(texts: Sequence[tuple[str, str]]) -> Floats:
    """Say which of the most frequent words each of N answers has, (N, 150)."""
    from sklearn.feature_extraction.text import CountVectorizer

    counts = CountVectorizer(max_features=150, binary=True, token_pattern=r"\w+|[?!]")
    return np.asarray(counts.fit_transform([answer for _, answer in texts]).toarray(), dtype=np.float64)


def embedded(texts: Sequence[tuple[str, str]]) -> Floats:
    """Embed N (prompt, answer), (N, 384); made once."""
    import platformdirs

    key = blake2b(repr((texts, TOKENS)).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    file = platformdirs.user_cache_path("label-studio-rlhf") / "frozen" / f"{key}.npy"
    if not file.is_file():
        found = _embedded(texts)
        with atomic_file(file) as temporary, temporary.open("wb") as stream:
            np.save(stream, found)
    return np.asarray(np.load(file))


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
