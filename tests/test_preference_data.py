"""Preferences from every kind of file: read, grouped, tokenised once, split, batched; every one accounted for."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lsplugin.errors import LspluginError
from lsplugin.files import write_json, write_jsonl
from lsplugin.preferences import Pair, write_pairs
from rm_lightning import store as stores
from rm_lightning.backbone import load_tokenizer
from rm_lightning.batches import Batches, Share, Size, deal, plan
from rm_lightning.data import PADDING, PreferenceData
from rm_lightning.errors import RewardModelError
from rm_lightning.sources import files_of, fingerprint, read_preferences
from rm_lightning.store import open_store
from rm_lightning.text import TextEncoder

TALK = "\n\nHuman: How was it?\n\nAssistant: "
QUESTION = {"role": "user", "content": "How was it?"}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


EXPLICIT = {"prompt": "How was it?", "chosen": "good", "rejected": "bad", "margin": 0.5}
SHAPES: dict[str, tuple[dict[str, Any], Any]] = {
    "pairs": (EXPLICIT, "How was it?"),
    "hh": ({"chosen": TALK + "good", "rejected": TALK + "bad", "margin": 0.5}, None),
    "implicit": ({"chosen": [QUESTION, said("good")], "rejected": [QUESTION, said("bad")], "margin": 0.5}, [QUESTION]),
    "explicit": (
        {"prompt": [QUESTION], "chosen": [said("good")], "rejected": [said("bad")], "margin": 0.5},
        [QUESTION],
    ),
    "ultrafeedback": (
        {
            "prompt": "How was it?",
            "chosen": [QUESTION, said("good")],
            "rejected": [QUESTION, said("bad")],
            "margin": 0.5,
        },
        [QUESTION],
    ),
}


@pytest.mark.parametrize("form", ["jsonl", "jsonl.gz", "json", "parquet", "arrow file", "arrow stream", "folder"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_shape_in_every_file_is_the_same_preference(shape: str, form: str, tmp_path: Path) -> None:
    row, prompt = SHAPES[shape]
    path = tmp_path / f"rows.{form.split(maxsplit=1)[0]}"
    if form == "jsonl":
        write_jsonl(path, [row, row])
    elif form == "jsonl.gz":
        path.write_bytes(gzip.compress(f"{json.dumps(row)}\n{json.dumps(row)}\n".encode()))
    elif form == "json":
        write_json(path, [row, row])
    else:
        table = pa.Table.from_pylist([row, row])
        if form == "parquet":
            pq.write_table(table, path)
        else:
            if form == "folder":
                path = tmp_path / "folder" / "data-00000-of-00001.arrow"
                path.parent.mkdir()
            new = pa.ipc.new_file if form == "arrow file" else pa.ipc.new_stream
            with path.open("wb") as sink, new(sink, table.schema) as writer:
                writer.write_table(table)
            path = path.parent if form == "folder" else path
    found = list(read_preferences(files_of([path]), Counter()))
    assert [row.number for row in found] == [1, 2]
    for one in found:
        assert (one.pair.chosen, one.pair.rejected, one.pair.margin) == ("good", "bad", 0.5)
        assert one.pair.prompt == (prompt or TALK.rstrip())


def test_a_dataset_that_datasets_saved_is_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_list([EXPLICIT] * 3).save_to_disk(tmp_path / "saved")
    datasets.Dataset.from_list([EXPLICIT] * 2).to_parquet(tmp_path / "saved.parquet")
    found = list(read_preferences(files_of([tmp_path / "saved", tmp_path / "saved.parquet"]), Counter()))
    assert [(row.file, row.number) for row in found] == [(0, 1), (0, 2), (0, 3), (1, 1), (1, 2)]
    assert {row.pair.margin for row in found} == {0.5}


def test_a_label_studio_export_is_read_as_pairs_reads_it(tmp_path: Path) -> None:
    def task(number: int, side: str) -> dict[str, Any]:
        value = {"selected": side}
        result = [
            {"id": "x", "from_name": "comparison", "to_name": "answer1,answer2", "type": "pairwise", "value": value}
        ]
        data = {"prompt": f"Day {number}?", "answer1": "good", "answer2": "bad"}
        return {"id": number, "data": data, "annotations": [{"id": number, "completed_by": 1, "result": result}]}

    skipped = task(3, "left")
    skipped["annotations"][0] |= {"was_cancelled": True, "result": []}
    write_json(tmp_path / "export.json", [task(1, "left"), task(2, "right"), skipped])
    dropped: Counter[str] = Counter()
    found = [row.pair for row in read_preferences([str(tmp_path / "export.json")], dropped)]
    assert [(pair.prompt, pair.chosen, pair.rejected) for pair in found] == [
        ("Day 1?", "good", "bad"),
        ("Day 2?", "bad", "good"),
    ]
    assert sum(dropped.values()) == 1


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ("", "no preferences in it"),
        ('{"prompt": "a", "chosen": "b"}', "line 1: expected `rejected` to be text, found nothing"),
        ('{"chosen": "b"}', "line 1: expected `rejected` to be text, found nothing"),
        ('{"prompt": "a", "chosen": [{"role": "assistant"}], "rejected": "c"}', "line 1: expected `chosen`"),
        ('{"prompt": "a", "chosen": "b", "rejected": "c", "weight": -1}', "line 1: expected `weight` of 0 or more"),
        ("[1]", "row 1: expected"),
        ('{"prompt": "a"', "line 1: expected one JSON object a line"),
    ],
)
def test_bad_rows_are_named(rows: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text(rows)
    with pytest.raises(LspluginError) as told:
        list(read_preferences(files_of([path]), Counter()))
    assert str(path) in str(told.value)
    assert complaint in str(told.value)


def test_a_table_that_is_none_is_named(tmp_path: Path) -> None:
    for ending in ("parquet", "arrow"):
        (tmp_path / f"x.{ending}").write_text("this is no table at all, however long it may be")
        with pytest.raises(RewardModelError, match="expected an Arrow or Parquet table"):
            list(read_preferences([str(tmp_path / f"x.{ending}")], Counter()))
    (tmp_path / "nothing").mkdir()
    with pytest.raises(RewardModelError, match=r"expected \.arrow or \.parquet files in this folder"):
        files_of([tmp_path / "nothing"])


# ------------------------------------------------------------------------------------------------------------- tokens


@pytest.fixture
def encoder(tiny_causal: Path) -> TextEncoder:
    return TextEncoder(load_tokenizer(str(tiny_causal)), max_length=64)


def test_tokens_are_those_of_one_text_at_a_time_and_every_row_is_accounted_for(
    encoder: TextEncoder, tmp_path: Path
) -> None:
    rows = [
        Pair("How was it?", "good", "bad", margin=1.0, meta={"task": 1}),
        Pair("How was it?", "good", "cold", probability=0.8, meta={"task": 1}),
        Pair("How was it?", "bad", "cold", probability=0.5, weight=2.0, meta={"task": 1}),
        Pair("How was it?", "good", "bad", meta={"task": 2}),  # another task
        Pair("How was it?", "bad", "good", meta={"task": 2}),  # somebody contradicts
        Pair("And then?", "same", "same"),
        Pair("And then?", "  ", "bad"),
        Pair("And then?", "good " * 100, "bad"),
        Pair("long " * 100, "good", "bad"),
    ]
    path = tmp_path / "pairs.jsonl"
    write_pairs(path, rows)
    store = open_store([str(path)], encoder, folder=tmp_path / "cache")
    assert len(store) == 3
    ranking = store[0]
    assert ranking.tree.prompt == encoder.prompt("How was it?")
    assert ranking.tree.answers == [encoder.answer(text) for text in ("good", "bad", "cold")]
    assert list(zip(ranking.better, ranking.worse, strict=True)) == [(0, 1), (0, 2), (1, 2)]
    assert ranking.probability == pytest.approx([1.0, 0.8, 0.5])
    assert ranking.margin[0] == 1.0
    assert np.isnan(ranking.margin[1:]).all()
    assert ranking.weight == [1.0, 1.0, 2.0]
    assert ranking.number == [1, 2, 3]
    assert store[1].better == [0, 1]
    whole = store[2]
    assert len(whole.tree.prompt) + max(map(len, whole.tree.answers)) == 64
    assert store.tokens.tolist() == [len(store[place].tree) for place in range(3)]
    assert store.comparisons.tolist() == [3, 2, 1]
    assert store.keys[0] == store.keys[1] != store.keys[2]
    assert dict(store.counts) == {
        "read": 9,
        "dropped: both answers are identical": 1,
        "dropped: an answer is empty": 1,
        "dropped: an answer is longer than 64 tokens": 1,
    }
    assert store.notes["prompts cut from the left"] == 1
    assert store.notes["ties"] == 1
    assert store.notes["rankings of more than two answers"] == 1
    assert store.notes["comparisons of answers that were compared before"] == 2
    assert store.notes["contradictory: their answers were also judged the other way round"] == 3


def test_tokens_are_made_once_for_the_same_content(
    encoder: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = tmp_path / "one.jsonl", tmp_path / "other.jsonl"
    write_pairs(one, [Pair("a", "good", "bad")])
    other.write_bytes(one.read_bytes())
    made: list[Path] = []
    real = stores._make

    def make(path: Path, *rest: Any) -> None:
        made.append(path)
        real(path, *rest)

    monkeypatch.setattr(stores, "_make", make)
    for file in (one, one, other):
        open_store([str(file)], encoder, folder=tmp_path / "cache")
    assert len(made) == 1
    open_store([str(one)], TextEncoder(encoder.tokenizer, max_length=32), folder=tmp_path / "cache")
    open_store([str(one)], TextEncoder(encoder.tokenizer, max_length=64, join="\n"), folder=tmp_path / "cache")
    write_pairs(one, [Pair("a", "good", "bad"), Pair("b", "good", "bad")])
    assert len(open_store([str(one)], encoder, folder=tmp_path / "cache")) == 2
    assert len(set(made)) == 4


def test_a_broken_file_leaves_no_tokens_behind(encoder: TextEncoder, tmp_path: Path) -> None:
    path = tmp_path / "pairs.jsonl"
    path.write_text('{"prompt": "a", "chosen": "b", "rejected": "c"}\n{"prompt": "a", "chosen": 3}\n')
    for _ in range(2):
        with pytest.raises(LspluginError, match="line 2"):
            open_store([str(path)], encoder, folder=tmp_path / "cache")
    assert not [file for file in (tmp_path / "cache").iterdir() if file.suffix != ".lock"]


def test_the_fingerprint_is_of_the_content_in_its_order(tmp_path: Path) -> None:
    for name, text in (("a", "1"), ("b", "2"), ("c", "1")):
        (tmp_path / name).write_text(text)
    a, b, c = (str(tmp_path / name) for name in "abc")
    assert fingerprint([a, b]) == fingerprint([c, b]) != fingerprint([b, a])
    assert fingerprint([a]) != fingerprint([a, a])


# ------------------------------------------------------------------------------------------------------------ batches


@given(
    sizes=st.lists(st.tuples(st.integers(1, 40), st.integers(1, 6)), min_size=1, max_size=120),
    budget=st.integers(1, 100),
    by_tokens=st.booleans(),
    processes=st.integers(1, 4),
)
def test_every_example_is_in_one_batch_of_one_process(
    sizes: list[tuple[int, int]], budget: int, by_tokens: bool, processes: int
) -> None:
    tokens, comparisons = (np.array(column, np.int32) for column in zip(*sizes, strict=True))
    size = Size(budget, budget if by_tokens else None)
    counts = set()
    for order in (None, (0, 0), (0, 1), (5, 0)):
        batches = plan(tokens, comparisons, size, processes=processes, order=order)
        counts.add(len(batches))
        assert sorted(int(place) for batch in batches for place in batch) == list(range(len(sizes)))
        weight = tokens if by_tokens else comparisons
        for batch in batches:
            assert len(batch) > 0
            assert weight[batch].sum() <= budget * processes + 2 * weight.max()
            dealt = [deal(batch, tokens, Share(rank, processes)) for rank in range(processes)]
            assert sorted(item.place for own in dealt for item in own if item.real) == sorted(batch.tolist())
            assert all(own for own in dealt)
    assert len(counts) == 1  # every epoch has as many steps


def test_batches_are_alike_for_one_process_and_for_two_with_half_each() -> None:
    tokens, comparisons = np.random.default_rng(0).integers(5, 50, 90).astype(np.int32), np.ones(90, np.int32)
    one = plan(tokens, comparisons, Size(8), processes=1, order=(0, 3))
    two = plan(tokens, comparisons, Size(4), processes=2, order=(0, 3))
    assert [batch.tolist() for batch in one] == [batch.tolist() for batch in two]
    assert max(len(batch) for batch in one) == 8


def test_batches_hold_what_is_about_equally_long() -> None:
    tokens = np.random.default_rng(0).integers(5, 500, 2000).astype(np.int32)
    batches = plan(tokens, np.ones(2000, np.int32), Size(16), order=(0, 0))
    fill = np.mean([tokens[batch].sum() / (tokens[batch].max() * len(batch)) for batch in batches])
    assert fill > 0.9
    assert np.std([tokens[batch].mean() for batch in batches[:20]]) > 50  # long and short ones come mixed


def test_an_epoch_goes_on_where_it_stopped_and_the_next_is_whole() -> None:
    tokens = np.arange(1, 41, dtype=np.int32)

    def batches(done: int = 0) -> Batches[list[int]]:
        places = lambda dealt: [item.place for item in dealt]  # noqa: E731
        return Batches(tokens, np.ones(40, np.int32), Size(4), Share(), 7, places, lambda: done)

    whole = batches()
    whole.set_epoch(1)
    expected = list(whole)
    resumed = batches(done=3)
    resumed.set_epoch(1)
    assert list(resumed) == expected[3:]
    whole.set_epoch(2)
    assert list(whole) != expected
    assert len(list(whole)) == len(expected) == 10


# --------------------------------------------------------------------------------------------------------- the module


def rankings(path: Path, count: int = 30) -> Path:
    """Prompts with a ranking of three answers, and as many with a single comparison."""
    rows = []
    for number in range(count):
        texts = [f"good {number}", f"fine {number}", f"bad {number}"]
        places = [(0, 1), (0, 2), (1, 2)] if number % 2 else [(0, 2)]
        rows += [
            Pair(f"day {number}", texts[a], texts[b], margin=float(b - a), meta={"task": number}) for a, b in places
        ]
    write_pairs(path, rows)
    return path


def test_a_batch_holds_what_the_file_says(tiny_causal: Path, tmp_path: Path) -> None:
    data = PreferenceData(str(rankings(tmp_path / "p.jsonl")), backbone=str(tiny_causal), batch_size=8, cache=tmp_path)
    data.setup("fit")
    decode = data.encoder.tokenizer.decode
    seen = []
    for batch in data.train_dataloader():
        flat, tree, branch = (part.flatten() for part in (batch.texts.input_ids, batch.texts.tree, batch.texts.branch))
        texts = []
        for end in batch.texts.ends.tolist():
            own = (tree == tree[end]) & (branch == branch[end])
            texts.append(str(decode(flat[own], skip_special_tokens=True)).strip())
        for place in range(len(batch.row)):
            better, worse = texts[int(batch.better[place])], texts[int(batch.worse[place])]
            told = data.describe("train", int(batch.row[place]))
            assert (told["chosen"].strip(), told["rejected"].strip()) == (better, worse)
            ranks = [["good", "fine", "bad"].index(text.split()[0]) for text in (better, worse)]
            assert batch.margin[place] == ranks[1] - ranks[0]
            seen.append((better, worse))
        for prompt in batch.prompt.unique():
            assert batch.weight[batch.prompt == prompt].sum() == pytest.approx(1.0)  # no prompt counts twice
    assert len(seen) == len(set(seen)) == data.counts["train"]
    assert data.counts["train"] + data.counts["validation"] + data.counts["test"] == data.counts["pairs"] == 60


def test_every_vote_on_the_same_two_answers_counts(tiny_causal: Path, tmp_path: Path) -> None:
    votes = [Pair("day 0", "good", "bad"), Pair("day 0", "bad", "good"), Pair("day 0", "good", "bad", weight=0.5)]
    ranked = [Pair("day 1", "good", "fine"), Pair("day 1", "good", "bad"), Pair("day 1", "fine", "bad")]
    write_pairs(tmp_path / "p.jsonl", votes + ranked + ranked[:1])
    data = PreferenceData(str(tmp_path / "p.jsonl"), backbone=str(tiny_causal), validation=0, test=0, cache=tmp_path)
    data.setup("fit")
    (batch,) = data.train_dataloader()
    weights = dict(zip(batch.row.tolist(), batch.weight.tolist(), strict=True))
    assert [weights[row] for row in range(7)] == pytest.approx([1, 1, 0.5, 1 / 3, 1 / 3, 1 / 3, 1 / 3])


def test_pairs_may_count_each(tiny_causal: Path, tmp_path: Path) -> None:
    path = str(rankings(tmp_path / "p.jsonl"))
    data = PreferenceData(path, backbone=str(tiny_causal), balance="pairs", cache=tmp_path)
    data.setup("fit")
    assert {weight for batch in data.train_dataloader() for weight in batch.weight.tolist()} == {1.0}


def test_prompts_are_on_one_side_and_the_split_does_not_depend_on_the_order(tiny_causal: Path, tmp_path: Path) -> None:
    path = rankings(tmp_path / "p.jsonl", 60)
    turned = tmp_path / "turned.jsonl"
    turned.write_text("\n".join(reversed(path.read_text().splitlines())))
    sides = []
    for file in (path, turned):
        data = PreferenceData(str(file), backbone=str(tiny_causal), validation=0.2, test=0.3, cache=tmp_path)
        data.setup("fit")
        sides.append({name: set(part.store.keys[part.places].tolist()) for name, part in data._parts.items()})
    assert sides[0] == sides[1]
    assert [len(sides[0][name]) for name in ("train", "validation", "test")] == [30, 12, 18]
    other = PreferenceData(str(path), backbone=str(tiny_causal), validation=0.2, test=0.3, cache=tmp_path, seed=1)
    other.setup("fit")
    assert set(other._parts["test"].store.keys[other._parts["test"].places].tolist()) != sides[0]["test"]


def test_files_of_their_own_for_validation_and_test(tiny_causal: Path, tmp_path: Path) -> None:
    path = rankings(tmp_path / "p.jsonl")
    write_pairs(tmp_path / "t.jsonl", [Pair("day 1", "good", "bad"), Pair("night 1", "good", "bad")])
    data = PreferenceData(
        str(path), test_pairs=str(tmp_path / "t.jsonl"), validation=0, backbone=str(tiny_causal), cache=tmp_path
    )
    data.setup("fit")
    assert {name: data.counts[name] for name in ("train", "test")} == {"train": 60, "test": 2}
    assert data.val_dataloader() == []
    assert data.notes["examples of test whose prompt is trained on, too"] == 1
    assert [pair.prompt for pair in data.test_rows()] == ["day 1", "night 1"]
    assert data.describe("test", 1)["where"].endswith("t.jsonl, line 2")


def test_the_last_uneven_batch_is_filled_up_with_what_does_not_count(
    tiny_causal: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(tmp_path / "p.jsonl", [Pair(f"day {n}", "good", "bad") for n in range(7)])
    data = PreferenceData(test_pairs=str(tmp_path / "p.jsonl"), backbone=str(tiny_causal), batch_size=2, cache=tmp_path)
    data.setup("test")
    rows: list[int] = []
    steps = set()
    for rank in range(3):
        monkeypatch.setattr(data, "_share", lambda rank=rank: Share(rank, 3))
        batches = list(data.test_dataloader())
        steps.add(len(batches))
        for batch in batches:
            assert (batch.weight == 0).tolist() == (batch.row == PADDING).tolist()
            rows += batch.row[batch.row != PADDING].tolist()
    assert len(steps) == 1
    assert sorted(rows) == list(range(7))


def test_settings_that_cannot_be_are_named(tiny_causal: Path, tmp_path: Path) -> None:
    for wrong, told in (
        ({"validation": 0.6, "test": 0.4}, "--data.validation 0.6 and --data.test 0.4"),
        ({"balance": "rows"}, "--data.balance rows: expected prompts or pairs"),
        ({"batch_size": 0}, "--data.batch_size 0: expected 1 or more"),
        ({"tokens_per_batch": 0}, "--data.tokens_per_batch 0"),
    ):
        with pytest.raises(RewardModelError, match=told):
            PreferenceData(**wrong)  # type: ignore[arg-type]
    write_pairs(tmp_path / "p.jsonl", [Pair("day", "good", "bad")])
    data = PreferenceData(str(tmp_path / "p.jsonl"), backbone=str(tiny_causal), cache=tmp_path)
    with pytest.raises(RewardModelError, match="no pairs are left for"):
        data.setup("fit")
    with pytest.raises(RewardModelError, match=r"there is nothing for train: name files with --data\.pairs"):
        PreferenceData(test_pairs=str(tmp_path / "p.jsonl"), backbone=str(tiny_causal), cache=tmp_path).setup("fit")


def test_a_full_disk_is_one_line(encoder: TextEncoder, tmp_path: Path) -> None:
    write_pairs(tmp_path / "p.jsonl", [Pair("day", "good", "bad")])
    (tmp_path / "file").touch()
    with pytest.raises(RewardModelError, match="tokens cannot be written here"):
        open_store([str(tmp_path / "p.jsonl")], encoder, folder=tmp_path / "file" / "cache")


def test_the_order_is_the_seeds(tiny_causal: Path, tmp_path: Path) -> None:
    path = str(rankings(tmp_path / "p.jsonl"))
    orders = []
    for _ in range(2):
        data = PreferenceData(path, backbone=str(tiny_causal), batch_size=4, cache=tmp_path)
        data.setup("fit")
        orders.append(torch.cat([batch.row for batch in data.train_dataloader()]))
    assert torch.equal(orders[0], orders[1])
