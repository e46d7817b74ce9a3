"""The made world: hand-worked gold scores, closed forms for the annotators, and a base model that really ends its answers."""

from __future__ import annotations

import json
import math
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from typer.testing import CliRunner

from demo_world import gold
from demo_world.annotators import CREW, Annotator, attainable_accuracy, gold_accuracy
from demo_world.base import BaseConfig, base_model, source_key
from demo_world.cli import app
from demo_world.corpus import corpus, prompts, question, review, split
from demo_world.pairs import Task, make_tasks, simulated_pairs
from lsplugin.errors import LspluginError
from lsplugin.preferences import Pair, read_pairs, read_prompts, write_pairs

if TYPE_CHECKING:
    from pathlib import Path

PROMPT = "Review of the bakery on Mill Street. How is the coffee?"
WEAK = "But the price is poor because nobody looks after it. My uncle lives nearby."  # -0.5 - 0.2 + 0.8 - 0.4 = -0.3
FAIR = "The coffee is excellent. My uncle lives nearby."  # -0.5 + 1.3 - 0.4 = 0.4


# --- corpus ---


def test_prompts_are_distinct_and_only_their_order_depends_on_the_seed() -> None:
    first, second = prompts(0), prompts(1)
    assert len(first) == len(set(first)) == 840
    assert first != second
    assert sorted(first) == sorted(second)
    assert first == prompts(0)


def test_no_prompt_leaks_between_the_splits_of_any_two_seeds() -> None:
    train, held_out = split(prompts(0))
    other_train, other_held_out = split(prompts(7))
    assert (len(train), len(held_out)) == (630, 210)
    assert not set(train) & set(other_held_out)
    assert set(other_train) == set(train)
    assert {prompt for prompt, _ in corpus(3, 2000)} <= set(train)


def test_the_corpus_is_reproducible_grammatical_and_varied() -> None:
    texts = corpus(0, 1000)
    assert texts == corpus(0, 1000)
    assert texts != corpus(1, 1000)
    parts = [gold.sentences(answer) for _, answer in texts]
    assert all(2 <= len(part) <= 5 for part in parts)
    assert {gold.read(sentence).kind for part in parts for sentence in part} == {"opinion", "tip", "filler", "rude"}
    assert len({answer for _, answer in texts}) > 800


@pytest.mark.parametrize("prompt", ["", "How is the coffee?", PROMPT.replace("coffee", "parking"), PROMPT + " Please."])
def test_a_prompt_of_another_world_is_refused_by_name(prompt: str) -> None:
    with pytest.raises(LspluginError, match="expected a prompt of the demo world"):
        question(prompt)


# --- gold: every number is added up by hand from the table ---


@pytest.mark.parametrize(
    ("answer", "points"),
    [
        ("The coffee is excellent because they care about it. Book a day ahead.", -0.5 + 1.3 + 0.8 + 0.8),
        (" Book a day ahead.\nI found the coffee poor because nobody looks after it. ", -0.5 + 1.3 + 0.8 + 0.8),
        ("The coffee is excellent because they care about it. Book a day ahead. Take the bus, it stops in front.", 2.4),
        ("The coffee is excellent. To me the coffee was lovely.", -0.5 + 1.3),
        (WEAK, -0.3),
        (FAIR, 0.4),
        ("The coffee is excellent. The coffee is excellent.", -0.5 + 1.3 - 0.6),
        ("The coffee is excellent. To me the coffee was poor.", -0.5 + 1.3 - 0.8),
        ("The coffee is excellent because nobody looks after it.", -0.5 + 1.3 - 0.8),
        ("What a silly question. I have better things to do.", -0.5 - 0.9 - 0.9),
        ("The coffee is exc", -0.5 - 1.0),
        ("the coffee is excellent.", -0.5 - 1.0),
        ("Book a day ahead.Book a day ahead.", -0.5 - 1.0),
        ("Coffee a. Coffee b. Coffee c. Coffee d. Coffee e.", -4.0),
        ("", -4.0),
        (" \n", -4.0),
    ],
)
def test_gold_adds_up_the_table(answer: str, points: float) -> None:
    assert gold.score(PROMPT, answer) == pytest.approx(points)


def test_the_same_answer_is_worth_less_under_another_question() -> None:
    answer = "The coffee is excellent."
    assert gold.scores([PROMPT, PROMPT.replace("coffee", "price")], [answer] * 2) == pytest.approx([0.8, -0.7])


def test_base_like_reviews_have_mean_about_0_and_leave_room_above() -> None:
    values = gold.scores(*map(list, zip(*corpus(0, 4000), strict=True)))
    mean = sum(values) / len(values)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in values) / len(values))
    assert abs(mean) < 0.15
    assert 1.0 < deviation < 1.6
    assert max(values) == pytest.approx(2.4)
    assert min(values) > gold.WORST


# --- annotators ---


@pytest.mark.parametrize(
    ("annotator", "left", "right", "expected"),
    [
        (Annotator("a", temperature=0.7), FAIR, WEAK, 0.731059),  # sigmoid(1)
        (Annotator("a", temperature=0.7, left_bias=0.8), WEAK, FAIR, 0.450166),  # sigmoid(-1 + 0.8)
        (Annotator("a", temperature=0.7, lazy=0.4), FAIR, WEAK, 0.638635),  # 0.2 + 0.6 sigmoid(1)
    ],
)
def test_choices_follow_bradley_terry(annotator: Annotator, left: str, right: str, expected: float) -> None:
    rng = random.Random(0)
    n = 20_000
    share = sum(annotator.choose(rng, PROMPT, left, right) == "left" for _ in range(n)) / n
    assert annotator.probability_left(PROMPT, left, right) == pytest.approx(expected, abs=1e-5)
    assert share == pytest.approx(expected, abs=4 * math.sqrt(0.25 / n))


def test_skips_and_empty_submissions_come_in_their_shares() -> None:
    annotator = Annotator("a", empty=0.3, skip=0.2)
    actions = [annotator.act(seed, PROMPT, FAIR, WEAK) for seed in range(5000)]
    assert actions.count("skipped") / 5000 == pytest.approx(0.2, abs=0.025)
    assert actions.count("empty") / 5000 == pytest.approx(0.8 * 0.3, abs=0.025)
    assert "skipped" not in {annotator.act(seed, PROMPT, FAIR, WEAK, may_skip=False) for seed in range(500)}


def test_what_an_annotator_does_depends_on_seed_task_and_name_only() -> None:
    tasks = _tasks(200)
    forward = {task: CREW[0].act(1, *task) for task in tasks}
    assert {task: CREW[0].act(1, *task) for task in reversed(tasks)} == forward
    assert {task: CREW[0].act(2, *task) for task in tasks} != forward
    assert {task: Annotator("zoe").act(1, *task) for task in tasks} != forward


def test_accuracy_has_its_closed_form() -> None:
    pair = Pair(prompt=PROMPT, chosen=WEAK, rejected=FAIR)
    honest, leaning = Annotator("a", temperature=0.7), Annotator("b", temperature=0.7, left_bias=0.8)
    assert attainable_accuracy([pair], [honest]) == pytest.approx(0.731059, abs=1e-5)
    # (sigmoid(1.8) + sigmoid(0.2)) / 2: shown left in one half of the cases, right in the other
    assert attainable_accuracy([pair], [leaning]) == pytest.approx(0.703991, abs=1e-5)
    assert attainable_accuracy([pair], [honest, leaning]) == pytest.approx((0.731059 + 0.703991) / 2, abs=1e-5)
    named = Pair(prompt=PROMPT, chosen=WEAK, rejected=FAIR, meta={"annotators": ["b.1f@simulated.example"]})
    assert attainable_accuracy([named], [honest, leaning]) == pytest.approx(0.703991, abs=1e-5)
    assert gold_accuracy([pair]) == 0.0
    assert gold_accuracy([Pair(prompt=PROMPT, chosen=FAIR, rejected=FAIR)]) == 0.5


def test_what_gold_attains_is_what_was_announced() -> None:
    pairs = simulated_pairs(_tasks(6000), seed=0)
    assert gold_accuracy(pairs) == pytest.approx(attainable_accuracy(pairs), abs=0.02)
    assert 0.72 < attainable_accuracy(pairs) < 0.82


@pytest.mark.parametrize("wrong", [{"temperature": 0.0}, {"lazy": 1.5}, {"skip": -0.1}])
def test_an_impossible_annotator_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(LspluginError, match="annotator a: expected"):
        Annotator("a", **wrong)


def test_accuracy_of_no_pairs_is_an_error() -> None:
    with pytest.raises(LspluginError, match="found none"):
        attainable_accuracy([])


# --- pairs ---


def test_pairs_are_well_formed_and_survive_a_file(tmp_path: Path) -> None:
    tasks = _tasks(300)
    pairs = simulated_pairs(tasks, seed=0)
    assert 285 < len(pairs) < 300  # only dirk's empty submissions make no pair
    assert {pair.meta["annotators"][0] for pair in pairs} == {annotator.name for annotator in CREW}
    for pair in pairs:
        task = tasks[pair.meta["task"]]
        shown = {"left": task.left, "right": task.right}
        assert pair.prompt == task.prompt
        assert pair.chosen == shown.pop(pair.meta["chosen_side"])
        assert pair.rejected == shown.popitem()[1]
    write_pairs(tmp_path / "pairs.jsonl", pairs)
    assert list(read_pairs(tmp_path / "pairs.jsonl")) == pairs


# --- base model ---

SMALL = BaseConfig(reviews=2400, width=64, heads=2)
TINY = BaseConfig(reviews=64, layers=1, width=16, heads=1, batch=16)


@pytest.fixture(scope="module")
def small_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DEMO_WORLD_CACHE", str(tmp_path_factory.mktemp("cache")))
        return base_model(0, config=SMALL)


def test_base_model_loads_and_ends_its_answers(small_base: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(small_base, padding_side="left")
    model: Any = AutoModelForCausalLM.from_pretrained(small_base)
    eos, pad = (tokenizer.convert_tokens_to_ids(token) for token in ("<|endoftext|>", "<|pad|>"))
    assert eos != pad
    for config in (model.config, model.generation_config, tokenizer):
        assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (eos, eos, pad)
    assert len(tokenizer) == model.config.vocab_size <= 800
    inputs = tokenizer(split(prompts(0))[1][:64], return_tensors="pt", padding=True)
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        ids = model.generate(**inputs, do_sample=True, max_new_tokens=80)
    assert (ids == eos).any(dim=1).float().mean() > 0.8


def test_tokens_come_back_as_the_same_text(small_base: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(small_base)
    for prompt, answer in [*corpus(1, 20), ("Über the café…", "naïve 雨 \n")]:
        ids = tokenizer(prompt)["input_ids"] + tokenizer(" " + answer)["input_ids"]
        assert tokenizer.decode(ids) == f"{prompt} {answer}"


def test_tasks_from_the_model_are_reproducible(small_base: Path) -> None:
    import torch

    texts = prompts(0)[:12]
    before = torch.get_rng_state()
    tasks = make_tasks(small_base, texts, seed=5)
    assert torch.equal(torch.get_rng_state(), before)
    assert tasks == make_tasks(small_base, texts, seed=5)
    assert tasks != make_tasks(small_base, texts, seed=6)
    assert all(task.left != task.right for task in tasks)


def test_same_seed_same_weights_and_the_cache_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        monkeypatch.setenv("DEMO_WORLD_CACHE", str(tmp_path / name))
        weights.append((base_model(seed, config=TINY) / "model.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]
    steps: list[int] = []
    base_model(1, config=TINY, progress=lambda done, _: steps.append(done))
    assert steps == []


def test_two_who_ask_at_once_train_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_WORLD_CACHE", str(tmp_path))
    steps: list[int] = []
    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(base_model, 0, config=TINY, progress=lambda done, _: steps.append(done)) for _ in range(2)]
    assert asked[0].result() == asked[1].result()
    assert steps == [1, 2, 3, 4]  # 64 reviews, 16 a step


def test_a_cache_that_cannot_be_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DEMO_WORLD_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(LspluginError, match="DEMO_WORLD_CACHE"):
        base_model(0, config=TINY)


def test_texts_that_do_not_fit_the_model_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEMO_WORLD_CACHE", str(tmp_path))
    with pytest.raises(LspluginError, match="at most positions=32 tokens"):
        base_model(0, config=BaseConfig(reviews=64, layers=1, width=16, heads=1, positions=32))


def test_the_cache_key_changes_with_source_and_settings() -> None:
    keys = {source_key(["gold"], 0), source_key(["gold"], 1), source_key(["corpus"], 0)}
    assert len(keys) == 3


# --- command line ---


def test_prompts_command_writes_what_was_asked_for(tmp_path: Path) -> None:
    train, held_out = tmp_path / "train.jsonl", tmp_path / "held_out.jsonl"
    arguments = ["prompts", "-o", str(train), "--held-out", str(held_out), "--train", "9", "--held-out-count", "4"]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert len(read_prompts(train)) == 9
    assert len(read_prompts(held_out)) == 4
    assert json.loads(train.read_text().splitlines()[0]) == {"prompt": split(prompts(0))[0][0]}


def test_a_mistake_is_one_line_and_exit_code_1(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "demo_world", "prompts", "-o", str(tmp_path / "p.jsonl"), "--train", "10000"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: --train: expected at most 630 prompts, found 10000\n"


def test_asking_for_help_imports_no_torch() -> None:
    code = "import sys, demo_world.cli, demo_world.gold, demo_world.annotators, demo_world.pairs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def _tasks(n: int) -> list[Task]:
    """Give tasks whose answers come straight from the grammar."""
    rng = random.Random("tasks of the tests")
    return [Task(prompt, review(rng, prompt), review(rng, prompt)) for prompt in rng.choices(prompts(0), k=n)]
