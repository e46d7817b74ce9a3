"""Pairs: what is written is read back, what is wrong is named, and no prompt stands on both sides of a split."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsplugin.errors import LspluginError
from lsplugin.preferences import Pair, prompt_text, read_pairs, read_prompts, split_by_prompt, write_pairs
from tests.helpers import read_lines, write_lines

if TYPE_CHECKING:
    from pathlib import Path

TEXT = st.text(max_size=30)
CHAT = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": TEXT}), min_size=1, max_size=3
)
PAIRS = st.builds(
    Pair,
    prompt=TEXT | CHAT,
    chosen=TEXT,
    rejected=TEXT,
    margin=st.none() | st.floats(-10, 10),
    probability=st.none() | st.floats(0, 1),
    weight=st.none() | st.floats(0, 10),
    meta=st.dictionaries(TEXT, TEXT | st.integers(0, 10**6), max_size=2),
)
GOOD: dict[str, Any] = {"prompt": "p", "chosen": "c", "rejected": "r"}


@given(pairs=st.lists(PAIRS, max_size=4))
def test_round_trip(pairs: list[Pair], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "pairs.jsonl"
    assert write_pairs(path, pairs) == len(pairs)
    assert list(read_pairs(path)) == pairs


def test_file_is_the_explicit_prompt_form(tmp_path: Path) -> None:
    write_pairs(tmp_path / "a.jsonl", [Pair("p", "c", "r"), Pair("p", "c", "r", 0.0, 0.75, 2.0, {"task": 7})])
    assert read_lines(tmp_path / "a.jsonl") == [
        {"prompt": "p", "chosen": "c", "rejected": "r"},
        {
            "prompt": "p",
            "chosen": "c",
            "rejected": "r",
            "margin": 0.0,
            "probability": 0.75,
            "weight": 2.0,
            "meta": {"task": 7},
        },
    ]


@pytest.mark.parametrize(
    ("row", "field", "found"),
    [
        ({"chosen": "c", "rejected": "r"}, "`prompt`", "found nothing"),
        (GOOD | {"prompt": 3}, "`prompt`", "the number 3"),
        (GOOD | {"prompt": []}, "`prompt`", "a list"),
        (GOOD | {"prompt": [{"role": "user"}]}, "`prompt`", "a list"),
        ({"prompt": "p", "rejected": "r"}, "`chosen`", "found nothing"),
        (GOOD | {"chosen": ["c"]}, "`chosen`", "a list"),
        (GOOD | {"rejected": None}, "`rejected`", "found nothing"),
        (GOOD | {"margin": "1"}, "`margin`", "the text '1'"),
        (GOOD | {"margin": True}, "`margin`", "found true"),
        (GOOD | {"probability": 1.5}, "`probability`", "1.5"),
        (GOOD | {"probability": -0.1}, "`probability`", "-0.1"),
        (GOOD | {"weight": -1}, "`weight`", "-1"),
        (GOOD | {"weight": float("inf")}, "`weight`", "inf"),
        (GOOD | {"meta": [1]}, "`meta`", "a list"),
        (["p", "c", "r"], "prompt, chosen and rejected", "a list"),
    ],
)
def test_complaint_names_file_line_and_field(tmp_path: Path, row: object, field: str, found: str) -> None:
    path = write_lines(tmp_path / "pairs.jsonl", [GOOD, row])
    with pytest.raises(LspluginError) as caught:
        list(read_pairs(path))
    message = str(caught.value)
    assert message.startswith(f"{path}, line 2: ")
    assert field in message
    assert found in message


def test_prompts(tmp_path: Path) -> None:
    chat = [{"role": "user", "content": "hello"}]
    assert read_prompts(write_lines(tmp_path / "a.jsonl", [{"prompt": "x"}, {"prompt": chat}])) == ["x", chat]
    with pytest.raises(LspluginError, match=r"b\.jsonl, line 2: expected `prompt`"):
        read_prompts(write_lines(tmp_path / "b.jsonl", [{"prompt": "x"}, {"text": "y"}]))
    with pytest.raises(LspluginError, match=r"c\.jsonl, line 1: expected an object"):
        read_prompts(write_lines(tmp_path / "c.jsonl", ["x"]))
    with pytest.raises(LspluginError, match=r"d\.jsonl: no prompts"):
        read_prompts(write_lines(tmp_path / "d.jsonl", []))


PROMPTS = st.lists(st.text(alphabet="abc\ud83d", max_size=3), max_size=40)
SHARES = st.floats(0, 1)
SEEDS = st.integers(-(2**63), 2**63 - 1)


class TestSplit:
    @given(prompts=PROMPTS, share=SHARES, seed=SEEDS)
    def test_no_prompt_leaks_and_no_row_is_lost(self, prompts: list[str], share: float, seed: int) -> None:
        rows = list(range(len(prompts)))
        train, held_out = split_by_prompt(rows, list(prompts), held_out=share, seed=seed)
        assert sorted(train + held_out) == rows
        assert (train, held_out) == (sorted(train), sorted(held_out))  # each in its old order
        assert not {prompts[row] for row in train} & {prompts[row] for row in held_out}

    @given(prompts=PROMPTS, share=SHARES)
    def test_share_is_of_the_distinct_prompts(self, prompts: list[str], share: float) -> None:
        _, held_out = split_by_prompt(prompts, list(prompts), held_out=share, seed=0)
        assert abs(len(set(held_out)) - share * len(set(prompts))) <= 0.5

    @given(prompts=PROMPTS, order=st.randoms(use_true_random=False), copies=st.integers(1, 3))
    def test_order_and_number_of_rows_do_not_matter(
        self, prompts: list[str], order: random.Random, copies: int
    ) -> None:
        shuffled = prompts * copies
        order.shuffle(shuffled)
        sides = [split_by_prompt(rows, list(rows), held_out=0.3, seed=7) for rows in (prompts, shuffled)]
        assert [set(side) for side in sides[0]] == [set(side) for side in sides[1]]

    def test_is_the_same_in_every_process_and_another_for_another_seed(self) -> None:
        rows = [f"prompt {number}" for number in range(20)]
        drawn = [split_by_prompt(rows, rows, held_out=0.25, seed=seed)[1] for seed in range(4)]
        assert drawn[0] == ["prompt 1", "prompt 2", "prompt 5", "prompt 10", "prompt 11"]  # as it was when written down
        assert len({tuple(side) for side in drawn}) == 4

    def test_conversations_are_told_apart_by_who_says_what(self) -> None:
        one = [{"role": "user", "content": "hi"}]
        other = [{"role": "assistant", "content": "hi"}]
        assert prompt_text(list(one)) != prompt_text(list(other))
        train, held_out = split_by_prompt([1, 2, 3, 4], [one, other, list(one), list(other)], held_out=0.5, seed=0)
        assert sorted([train, held_out]) == [[1, 3], [2, 4]]
