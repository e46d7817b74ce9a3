"""Refits are judged on what neither model was trained on; a swap loses nothing, whenever it is killed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from lsplugin.preferences import Pair, read_pairs, write_pairs
from rm_lightning.data import PreferenceData
from rm_lightning.errors import RewardModelError
from rm_lightning.held_out import TEST, compare, held_out, paired_interval
from rm_lightning.refit import fit_options, recover, swap
from rm_lightning.scorer import RewardScorer
from tests.backends import random_model
from tests.fits import days
from tests.helpers import write_json

if TYPE_CHECKING:
    from collections.abc import Sequence


def fitted(folder: Path, pairs: Sequence[Pair], backbone: Path, *, seed: int = 3) -> PreferenceData:
    """Split pairs as `fit` does, and write what it keeps of that."""
    folder.mkdir()
    write_pairs(folder / "pairs.jsonl", pairs)
    data = PreferenceData(str(folder / "pairs.jsonl"), backbone=str(backbone), cache=folder / "cache", seed=seed)
    data.setup("fit")
    write_pairs(folder / TEST, data.test_rows())
    write_json(folder / "metrics.json", {"seed": seed, "test_up_to": data.test_up_to})
    return data


def trained_on(data: PreferenceData, pairs: Sequence[Pair]) -> set[str]:
    """The prompts that the weights or the choice of the checkpoint saw."""
    seen = set()
    for part in ("train", "validation"):
        store, places = data._parts[part]
        seen |= {number for place in places.tolist() for number in store[place].number}
    return {str(pairs[number - 1].prompt) for number in seen}


def test_no_prompt_that_either_model_has_seen(tiny_causal: Path, tmp_path: Path) -> None:
    more = days(400)
    first = fitted(tmp_path / "old", more[:200], tiny_causal)
    second = fitted(tmp_path / "new", more[100:], tiny_causal)  # some are gone, more have come
    found = {str(pair.prompt) for pair in held_out(tmp_path / "old", tmp_path / "new")}
    assert not found & (trained_on(first, more[:200]) | trained_on(second, more[100:]))
    old_test, new_test = ({str(pair.prompt) for pair in read_pairs(tmp_path / name / TEST)} for name in ("old", "new"))
    assert found <= new_test
    assert found - old_test, "it grows with the project"
    assert len(found) > 20


def test_an_older_model_is_known_by_its_test_pairs_alone(tiny_causal: Path, tmp_path: Path) -> None:
    fitted(tmp_path / "old", days(200), tiny_causal)
    fitted(tmp_path / "new", days(400), tiny_causal)
    write_json(tmp_path / "old/metrics.json", {"seed": 3})
    found = {str(pair.prompt) for pair in held_out(tmp_path / "old", tmp_path / "new")}
    assert found
    assert found <= {str(pair.prompt) for pair in read_pairs(tmp_path / "old" / TEST)}
    write_pairs(tmp_path / "old" / TEST, [Pair("elsewhere", "a", "b")])
    with pytest.raises(RewardModelError, match="none of the new model's held-out prompts"):
        held_out(tmp_path / "old", tmp_path / "new")
    (tmp_path / "old" / TEST).unlink()
    with pytest.raises(RewardModelError, match=r"fit it with --data\.test above 0"):
        held_out(tmp_path / "old", tmp_path / "new")


def test_models_are_compared_on_the_same_pairs(tiny_causal: Path, tmp_path: Path) -> None:
    old, new = (RewardScorer(str(random_model(tiny_causal, tmp_path / f"rm{seed}", seed=seed))) for seed in (0, 1))
    pairs = [*days(40), Pair("p", "good " * 200, "bad", probability=0.3), Pair("p", "good", "bad", probability=0.3)]
    found = compare(old, new, pairs)
    usable = [*pairs[:40], pairs[41]]  # one answer is too long
    right = []
    for scorer in (old, new):
        both = [scorer([pair.prompt] * 2, [pair.chosen, pair.rejected]).tolist() for pair in usable]
        right.append(
            [(better > worse) == (pair.probability != 0.3) for (better, worse), pair in zip(both, usable, strict=True)]
        )
    assert (found.pairs, found.prompts) == (41, 41)
    assert found.old == pytest.approx(sum(right[0]) / 41)
    assert found.new == pytest.approx(sum(right[1]) / 41)
    assert found.low < found.new - found.old < found.high


def test_the_interval_of_a_paired_difference() -> None:
    # Of ten, three more and one less were right: d = 2 / 12, variance = (5 - 4 / 12) / 144, by hand.
    gains = torch.tensor([1.0, 1.0, 1.0, -1.0] + [0.0] * 6)
    half = 1.959964 * math.sqrt((5 - 4 / 12) / 144)
    assert paired_interval(gains, torch.arange(10)) == pytest.approx((1 / 6 - half, 1 / 6 + half))
    low, high = paired_interval(torch.zeros(10), torch.arange(10))
    assert low == -high
    assert high == pytest.approx(1.959964 / 12)  # two models that agree on ten things may still differ
    twice = paired_interval(gains.repeat_interleave(2), torch.arange(10).repeat_interleave(2))
    assert twice[0] <= paired_interval(gains, torch.arange(10))[0] + 0.02, "a prompt asked twice is no second prompt"


def test_a_refit_is_fitted_like_the_model_before(tmp_path: Path) -> None:
    settings = {
        "model.backbone": "gpt2",
        "model.lora": {"r": 8},
        "model.join": None,
        "model.dropout": False,
        "steps": 7,
    }
    write_json(tmp_path / "metrics.json", {"seed": 5, "settings": settings})
    wanted = ["--data.seed=5", "--model.backbone=gpt2", '--model.lora={"r": 8}', "--model.dropout=false"]
    assert fit_options(tmp_path) == wanted
    assert fit_options(tmp_path / "elsewhere") == []


def test_a_swap_keeps_the_old_model_and_is_finished_after_a_kill(tmp_path: Path) -> None:
    served, new = tmp_path / "rm", tmp_path / "rm-refit/rm"

    def make(folder: Path, content: str) -> None:
        folder.mkdir(parents=True)
        (folder / "metrics.json").write_text(content)

    make(served, "1")
    make(new, "2")
    assert swap(new, served, "rm-aaaaaaaaaaaa") == tmp_path / "rm-aaaaaaaaaaaa"
    make(new, "3")
    assert swap(new, served, "rm-aaaaaaaaaaaa") == tmp_path / "rm-aaaaaaaaaaaa-1"
    contents = [
        (tmp_path / name / "metrics.json").read_text() for name in ("rm-aaaaaaaaaaaa", "rm-aaaaaaaaaaaa-1", "rm")
    ]
    assert contents == ["1", "2", "3"]
    make(new, "4")
    recover(served)
    assert (served / "metrics.json").read_text() == "3"
    served.rename(tmp_path / "kept")  # as far as a swap may come
    recover(served)
    assert (served / "metrics.json").read_text() == "4"
    with pytest.raises(OSError):
        swap(new, served, "rm-b")  # nothing new is there
    assert (served / "metrics.json").read_text() == "4"
