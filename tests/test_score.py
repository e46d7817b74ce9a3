"""Scores in bulk: one text's score whatever is asked along with it, every shape of file, every answer counted, kills survived."""

from __future__ import annotations

import gzip
import json
import math
import os
import random
import shutil
import signal
import statistics
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertForSequenceClassification

from lsplugin.dataset import Task, keyed
from lsplugin.errors import LspluginError
from lsplugin.plan import Plan, planned
from lsplugin.preferences import Pair, write_pairs
from lsplugin.prelabel import read_scores
from lsplugin.render import build
from lsplugin.template import Spec
from rm_lightning.backbone import load_scorer, load_tokenizer
from rm_lightning.candidates import read_candidates
from rm_lightning.errors import RewardModelError
from rm_lightning.packing import Tree
from rm_lightning.scorer import RewardScorer, Text, batches, find_device, grow, room
from rm_lightning.scoring import CHUNK, Part, model_digest, score_files
from rm_lightning.text import JOIN_KEY
from tests.helpers import Result, run_cli

if TYPE_CHECKING:
    from collections.abc import Iterable

CHAT = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "<{{ m.role }}>{{ m.content }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
SENTENCE = "The coffee was good and the staff were kind, not cold; a short answer is better."
WORDS = SENTENCE.split()


@pytest.fixture(scope="module")
def models(tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Three reward models with heads drawn at random, whose chat template knows no tools."""
    folders = []
    for seed in range(3):
        torch.manual_seed(seed)
        tokenizer = load_tokenizer(str(tiny_causal))
        tokenizer.chat_template = CHAT
        model = load_scorer(str(tiny_causal), tokenizer, new=True)
        torch.nn.init.normal_(model.score.weight)  # type: ignore[union-attr]
        setattr(model.config, JOIN_KEY, " ")
        folder = tmp_path_factory.mktemp("models") / f"rm{seed}"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders.append(str(folder))
    return folders


@pytest.fixture(scope="module")
def questions() -> tuple[list[str], list[str]]:
    """Prompts, some of them several times in a row, and an answer to each."""
    rng = random.Random(0)
    prompts, answers = [], []
    for _ in range(20):
        prompt = " ".join(rng.choices(WORDS, k=rng.randrange(12)))
        for _ in range(rng.choice([1, 1, 2, 4])):
            prompts.append(prompt)
            answers.append(" ".join(rng.choices(WORDS, k=rng.randrange(9))))
    return prompts, answers


@pytest.fixture(scope="module")
def trained(tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model that learned from 60 pairs that good is better than cold."""
    folder = tmp_path_factory.mktemp("trained")
    rows = [Pair(f"How was day {n}?", "It was good and kind.", "It was cold and short.") for n in range(60)]
    write_pairs(folder / "pairs.jsonl", rows)
    settings = [
        "--data.batch_size=8",
        "--model.learning_rate=1e-2",
        "--trainer.max_epochs=2",
        "--trainer.accelerator=cpu",
    ]
    quiet = "--trainer.enable_progress_bar=false"
    made = run_cli(["rm_lightning", "fit", f"--data.pairs={folder}/pairs.jsonl", f"--model.backbone={tiny_causal}",
                    f"--output={folder}/rm", *settings, quiet])  # fmt: skip
    assert made.code == 0, made.stderr
    return folder / "rm"


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A list of six chunks and a bit."""
    rng = random.Random(1)
    path = tmp_path_factory.mktemp("many") / "dataset.json"
    rows = [
        {"prompt": f"{n} {rng.choice(WORDS)}"}
        | {f"answer{k}": " ".join(rng.choices(WORDS, k=k + 2)) for k in range(1, 5)}
        for n in range(6 * CHUNK // 4 + 50)
    ]
    path.write_text(json.dumps(rows))
    return path


def plain(folder: str, texts: Iterable[str]) -> list[float]:
    """The scores of plain transformers, one text at a time; a text that is too long loses its beginning."""
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    limit = getattr(model.config, "n_positions", 512)
    with torch.no_grad():
        return [
            float(model(input_ids=torch.tensor([tokenizer(text + tokenizer.eos_token).input_ids[-limit:]])).logits)
            for text in texts
        ]


def write_lines(path: Path, rows: Iterable[object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run_score(*args: object) -> Result:
    return run_cli(["rm_lightning", "score", *map(str, args), "--device", "cpu"])


class TestScorer:
    @pytest.mark.parametrize("tokens", [1, 70, 100_000])
    def test_every_score_is_that_of_its_text_alone(
        self, models: list[str], questions: tuple[list[str], list[str]], tokens: int
    ) -> None:
        texts = [f"{prompt} {answer}" for prompt, answer in zip(*questions, strict=True)]
        ours = RewardScorer(models[0], tokens_per_batch=tokens)(*questions)
        assert ours.dtype == torch.float32
        assert torch.allclose(ours, torch.tensor(plain(models[0], texts)), atol=1e-5)

    def test_a_prompt_is_cut_for_its_own_answer_only(self, models: list[str]) -> None:
        prompt = " ".join(WORDS * 5)
        answers = ["good", " ".join(WORDS), "not cold", " ".join(WORDS * 2), "kind"]
        ours = RewardScorer(models[0])([prompt] * 5, answers)
        assert torch.allclose(ours, torch.tensor(plain(models[0], [f"{prompt} {text}" for text in answers])), atol=1e-5)

    def test_an_encoder_has_every_answer_behind_a_prompt_of_its_own(
        self, models: list[str], questions: tuple[list[str], list[str]], tmp_path: Path
    ) -> None:
        tokenizer = load_tokenizer(models[0])
        torch.manual_seed(0)
        config = BertConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
                            num_attention_heads=4, num_labels=1, pad_token_id=tokenizer.pad_token_id)  # fmt: skip
        setattr(config, JOIN_KEY, " ")
        BertForSequenceClassification(config).save_pretrained(tmp_path)
        tokenizer.save_pretrained(tmp_path)
        texts = [f"{prompt} {answer}" for prompt, answer in zip(*questions, strict=True)]
        ours = RewardScorer(str(tmp_path), tokens_per_batch=200)(*questions)
        assert torch.allclose(ours, torch.tensor(plain(str(tmp_path), texts)), atol=1e-5)

    def test_an_ensemble_is_its_members(self, models: list[str], questions: tuple[list[str], list[str]]) -> None:
        alone = torch.stack([RewardScorer(folder)(*questions) for folder in models], dim=1)
        assert torch.equal(RewardScorer(models).all(*questions), alone)
        assert torch.allclose(RewardScorer(models)(*questions), alone.mean(dim=1))
        assert torch.equal(RewardScorer(models, members=[2, 0]).all(*questions), alone[:, [2, 0]])
        assert torch.equal(RewardScorer(models, members=[1])(*questions), alone[:, 1])
        assert RewardScorer(models).all([], []).shape == (0, 3)

    @pytest.mark.parametrize(
        ("members", "said"),
        [
            ([3], "there is no member 3; there are 3 in .*rm0 (1), .*rm1 (1), .*rm2 (1), counted from 0"),
            ([-1], "there is no member -1"),
            ([0, 0], "expected each one once and at least one, found [0, 0]"),
            ([], "at least one, found []"),
        ],
    )
    def test_members_that_are_not_there(self, models: list[str], members: list[int], said: str) -> None:
        with pytest.raises(RewardModelError, match=said.replace("(", r"\(").replace(")", r"\)").replace("[", r"\[")):
            RewardScorer(models, members=members)

    def test_what_it_cannot_score_it_names(self, models: list[str]) -> None:
        scorer = RewardScorer(models[:2])
        long, tool = " ".join(WORDS * 9), [{"role": "tool", "content": "x"}]
        fine = [{"role": "user", "content": "How was it?"}]
        attempt = scorer.attempt(["a", "a", tool, fine, "a"], ["good", long, "good", "good", "cold"])
        assert attempt.places == [0, 3, 4]
        assert attempt.refused == {
            1: f"longer than the 128 tokens that {models[0]} reads",
            2: f"refused with its prompt by the chat template of {models[0]} (no tools here)",
        }
        assert torch.equal(attempt.scores, scorer.all(["a", fine, "a"], ["good", "good", "cold"]))
        asked = plain(models[1], ["<user>How was it?<assistant>good"])
        assert float(attempt.scores[1, 1]) == pytest.approx(asked[0], abs=1e-5)
        with pytest.raises(RewardModelError, match=r"answer that begins 'The coffee.*longer than the 128 tokens"):
            scorer(["a", "a"], ["good", long])

    def test_settings_that_cannot_be(self, models: list[str]) -> None:
        with pytest.raises(RewardModelError, match="precision 8: expected 32-true or bf16-mixed"):
            RewardScorer(models, precision="8")
        with pytest.raises(RewardModelError, match="found none"):
            RewardScorer([])
        with pytest.raises(RewardModelError, match="tokens_per_batch 0"):
            RewardScorer(models, tokens_per_batch=0)
        for name in ["gpu!", *(["cuda"] if not torch.cuda.is_available() else [])]:
            with pytest.raises(RewardModelError, match=f"device {name}: expected auto, cpu or cuda"):
                find_device(name)

    def test_bfloat16_is_near(self, models: list[str], questions: tuple[list[str], list[str]]) -> None:
        exact, mixed = (RewardScorer(models[0], precision=kind)(*questions) for kind in ("32-true", "bf16-mixed"))
        assert 0 < (exact - mixed).abs().max() < 0.05 * exact.abs().max()


class TestTrees:
    def test_by_hand(self) -> None:
        texts = [Text([1], [5]), Text([1], [6, 7]), Text([2], [8]), Text([1], [9]), Text([1], [3, 3]), Text([1], [4])]
        assert grow(texts, tokens=4, width=32) == [
            Tree([1], [[5], [6, 7]]),
            Tree([2], [[8]]),
            Tree([1], [[9], [3, 3]]),
            Tree([1], [[4]]),  # a fifth token
        ]
        assert grow(texts[:2], tokens=4, width=None) == [Tree([1], [[5]]), Tree([1], [[6, 7]])]
        assert list(batches([3, 1, 9, 1, 2], tokens=6)) == [[1, 3, 4], [0], [2]]

    @pytest.mark.parametrize(("prompt", "width"), [(50, 384), (400, 384), (3000, 1024)])
    def test_as_many_answers_share_a_prompt_as_cost_least(self, prompt: int, width: int) -> None:
        def cost(answers: int) -> float:
            return (24 * width**2 + 4 * (prompt + answers) * width) * (prompt + answers) / answers

        assert room(prompt, width) == pytest.approx(min(range(1, 20_000), key=cost), abs=1)
        texts = [Text([1] * prompt, [2] * 10)] * 2000
        sizes = [len(tree.answers) for tree in grow(texts, tokens=10_000, width=width)]
        assert set(sizes[:-1]) == {min(int(room(prompt, width)), 10_000 - prompt) // 10}

    @given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 120))
    def test_batches_hold_every_tree_once_and_no_more_tokens_than_asked(self, sizes: list[int], tokens: int) -> None:
        found = list(batches(sizes, tokens=tokens))
        assert sorted(tree for batch in found for tree in batch) == list(range(len(sizes)))
        for batch in found:
            assert len(batch) == 1 or len(batch) * max(sizes[tree] for tree in batch) <= tokens


class TestReading:
    @pytest.mark.parametrize(
        ("row", "fields"),
        [
            ({"prompt": "p", "answer10": "j", "answer2": "b", "answer2_html": "<p>", "meta": {}},
             {"answer2": "b", "answer10": "j"}),
            ({"id": 3, "data": {"prompt": "p", "answer1": "a", "answer2": "b"}, "annotations": []},
             {"answer1": "a", "answer2": "b"}),
            ({"prompt": "p", "answer1": "a", "items": [{"id": "answer1", "body": "x"}]}, {"answer1": "a"}),
            ({"data": {"prompt": "p", "items": [{"id": 1, "body": "a"}, {"id": 2, "body": "b"}]}},
             {"items[0].body": "a", "items[1].body": "b"}),
            ({"prompt": "p", "chosen": "a", "rejected": "b", "margin": 1.0}, {"chosen": "a", "rejected": "b"}),
            ({"prompt": "p", "answer": "a"}, {"answer": "a"}),
            ({"prompt": "p", "answers": ["a", "", "c"]}, {"answers[0]": "a", "answers[1]": "", "answers[2]": "c"}),
        ],
    )  # fmt: skip
    def test_every_shape_as_a_list_and_as_lines(
        self, row: dict[str, Any], fields: dict[str, str], tmp_path: Path
    ) -> None:
        listed, lines = tmp_path / "l.json", write_lines(tmp_path / "l.jsonl", [row, row])
        listed.write_bytes(b"\xef\xbb\xbf\n " + json.dumps([row, row], indent=1).encode())
        packed = tmp_path / "l.json.gz"
        packed.write_bytes(gzip.compress(json.dumps([row, row]).encode()))
        for path, unit in ((listed, "row"), (lines, "line"), (packed, "row")):
            expected = [("p", text, f"{path}, {unit} {n}, {name}") for n in (1, 2) for name, text in fields.items()]
            assert [candidate[:3] for candidate in read_candidates([path])] == expected

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            (3, "expected an object with a prompt and answers, found the number 3"),
            ({"question": "p", "answer": "a"}, "the field `prompt` is missing (it has question, answer)"),
            ({"prompt": 4, "answer": "a"}, "expected `prompt` to be text or a list of"),
            ({"prompt": "p"}, "expected `answer1`, `answer2`, ..., or `chosen`"),
            ({"prompt": "p", "items": [{"id": 1, "title": "A"}]}, "or a list of `answers`; found prompt, items"),
            ({"prompt": "p", "chosen": "a"}, "a pair with `chosen`, but the field `rejected` is missing"),
            ({"prompt": "p", "answer1": "a", "answer2": None}, "expected `answer2` to be text, found nothing"),
            ({"prompt": "p", "answers": "ab"}, "expected `answers` to be a list of texts, found the text 'ab'"),
            ({"prompt": "p", "answers": ["a", 5]}, "expected `answers[1]` to be text, found the number 5"),
        ],
    )
    def test_a_bad_row_is_named(self, row: object, said: str, tmp_path: Path) -> None:
        good = {"prompt": "p", "answer": "a"}
        (tmp_path / "a.json").write_text(json.dumps([good, row]))
        write_lines(tmp_path / "a.jsonl", [good, row])
        for name, place in (("a.json", "row 2"), ("a.jsonl", "line 2")):
            with pytest.raises(LspluginError) as caught:
                list(read_candidates([tmp_path / name]))
            assert str(caught.value).startswith(f"{tmp_path / name}, {place}: ")
            assert said in str(caught.value)

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("a.json", b'[{"prompt": "p", "answer": "a"}, {"prompt": ', "a.json, after row 1: expected a list in JSON"),
            ("a.json.gz", b"[]", "a.json.gz: expected a whole gzip file"),
            (
                "b.json.gz",
                gzip.compress(b"[" + b"1," * 99 + b"1]", mtime=0)[:-9],
                "b.json.gz: expected a whole gzip file",
            ),
        ],
    )
    def test_a_broken_file_is_named(self, name: str, content: bytes, said: str, tmp_path: Path) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(RewardModelError, match=said):
            list(read_candidates([tmp_path / name]))

    def test_a_long_list_needs_no_more_memory_than_a_short_one(self, tmp_path: Path) -> None:
        peaks = []
        for count in (500, 20_000):
            path = tmp_path / f"{count}.json"
            path.write_text(
                json.dumps([{"prompt": "p" * 300, "answer1": "a" * 300, "answer2": str(n)} for n in range(count)])
            )
            tracemalloc.start()
            assert sum(1 for _ in read_candidates([path])) == 2 * count
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert path.stat().st_size > 12_000_000
        assert peaks[1] < 2 * peaks[0] < 4_000_000


class TestCommand:
    def test_scores_of_a_dataset_become_its_prelabels(self, trained: Path, tmp_path: Path) -> None:
        sides = ["It was good and kind.", "It was cold and short."]
        rows = [
            {"prompt": f"How was day {n}?", "answer1": sides[n % 2], "answer2": sides[1 - n % 2]} for n in range(60, 90)
        ]
        dataset, scores = tmp_path / "dataset.json", tmp_path / "scores.jsonl"
        dataset.write_text(json.dumps(rows))
        done = run_score("--model", trained, dataset, "-o", scores)
        assert done.code == 0
        assert "60 of 60 answers scored, 0 skipped" in done.stderr
        found, model = read_scores(scores)
        assert (len(found), model) == (60, "rm")
        texts = [f"{row['prompt']} {row['answer1']}" for row in rows]
        ours = [found[row["prompt"], row["answer1"]] for row in rows]
        assert ours == pytest.approx(plain(str(trained), texts), abs=1e-5)
        made = planned(keyed([Task(row, {}, n) for n, row in enumerate(rows)]), build(Spec()), Plan(predictions=scores))
        for task in made:
            number = int(task.data["prompt"].split()[-1].strip("?"))
            assert task.meta["prelabel"]["answer"] == ("answer2" if number % 2 else "answer1")
            assert len(task.predictions) == 1

    def test_an_ensemble_tells_its_spread(self, models: list[str], tmp_path: Path) -> None:
        rows = [{"prompt": "How was it?", "answers": ["good", "cold", "kind"]}]
        path, scores = write_lines(tmp_path / "c.jsonl", rows), tmp_path / "scores.jsonl"
        assert run_score("--model", models[0], "--model", models[1], "--model", models[2], path, "-o", scores).code == 0
        lines = read_lines(scores)
        assert [line["where"] for line in lines] == [f"{path}, line 1, answers[{n}]" for n in range(3)]
        for line in lines:
            alone = [plain(model, [f"How was it? {line['answer']}"])[0] for model in models]
            assert line["members"] == pytest.approx(alone, abs=1e-5)
            assert line["score"] == pytest.approx(statistics.mean(alone), abs=1e-5)
            assert line["spread"] == pytest.approx(statistics.stdev(alone), abs=1e-5)
            assert line["model"] == "rm0+rm1+rm2"
        chosen = tmp_path / "judge.jsonl"
        done = run_score("--model", models[0], "--model", models[1], "--members", "1", path, "-o", chosen)
        assert done.code == 0
        assert [line["score"] for line in read_lines(chosen)] == [line["members"][1] for line in lines]
        assert set(read_lines(chosen)[0]) == {"prompt", "answer", "score", "model", "where"}
        assert read_lines(chosen)[0]["model"] == "rm0+rm1[1]"

    def test_every_answer_is_scored_or_named(self, models: list[str], tmp_path: Path) -> None:
        long = " ".join(WORDS * 9)
        rows = [
            {"prompt": "p", "answer1": "good", "answer2": long, "answer3": "good"},
            {"prompt": "", "answer1": " ", "answer2": "good"},
            {"prompt": "p\ud83d", "answer1": "good", "answer2": long},
            {"prompt": [{"role": "tool", "content": "x"}], "answer": "good"},
            {"prompt": [{"role": "user", "content": "x"}], "answer": ""},
            *({"prompt": "p", "answer": f"{n} {long}"} for n in range(4)),
        ]
        path, scores = write_lines(tmp_path / "c.jsonl", rows), tmp_path / "scores.jsonl"
        done = run_score("--model", models[0], path, "-o", scores)
        assert done.code == 0
        kept = [line["where"].removeprefix(f"{path}, ") for line in read_lines(scores)]
        assert kept == ["line 1, answer1", "line 2, answer2", "line 5, answer"]
        said = [line for line in done.stderr.splitlines() if line.startswith(("wrote", "skipped"))]
        named, long_said = f"{path}, line", f"longer than the 128 tokens that {models[0]} reads"
        assert said == [
            f"wrote {scores}: 3 of 13 answers scored, 10 skipped",
            f"skipped 5 {long_said}: {named} 1, answer2; {named} 6, answer; {named} 7, answer; ...",
            f"skipped 1 its row holds the same answer before: {named} 1, answer3",
            f"skipped 1 prompt and answer are empty: {path}, line 2, answer1",
            f"skipped 2 half a character (a lone surrogate), which no tokenizer reads: {named} 3, answer1; {named} 3, answer2",
            f"skipped 1 refused with its prompt by the chat template of {models[0]} (no tools here): {path}, line 4, answer",
        ]

    def test_mistakes_are_one_line(self, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        write_lines(tmp_path / "good.jsonl", [{"prompt": "p", "answer": "a"}])
        write_lines(tmp_path / "long.jsonl", [{"prompt": "p", "answer": " ".join(WORDS * 9)}])
        (tmp_path / "empty.jsonl").write_text("\n")
        model = ["--model", models[0]]
        cases = [
            (["good.jsonl"], "runs/rm: no such folder; `python -m rm_lightning fit` makes it"),
            ([*model, "none.jsonl"], "none.jsonl: no such file"),
            ([*model, "empty.jsonl"], "empty.jsonl: no answers in there"),
            ([*model, "long.jsonl"], "none of 1 answers has a score: 1 longer than the 128 tokens"),
            ([*model, "good.jsonl", "-o", "good.jsonl"], "it is one of the files to score"),
            ([*model, "good.jsonl", "-o", "."], "expected a file to write, found a folder"),
            ([*model, "good.jsonl", "-o", "memory://x.jsonl"], "expected a local file"),
            ([*model, "good.jsonl", "--members", "a"], "--members a: expected numbers such as 0,2"),
            ([*model, "good.jsonl", "--members", "1"], "there is no member 1; there are 1 in "),
            ([*model, "good.jsonl", "--precision", "16"], "precision 16: expected 32-true or bf16-mixed"),
        ]
        for arguments, said in cases:
            done = run_score(*arguments)
            assert done.code == 1, arguments
            assert done.stderr.strip().splitlines()[-1].startswith("error: ")
            assert said in done.stderr.strip().splitlines()[-1]
        assert not (tmp_path / "scores.jsonl").exists()

    def test_a_model_that_gives_no_number_is_named(self, models: list[str], tmp_path: Path) -> None:
        model = AutoModelForSequenceClassification.from_pretrained(models[0])
        model.score.weight.data.fill_(math.nan)
        model.save_pretrained(tmp_path / "broken")
        AutoTokenizer.from_pretrained(models[0]).save_pretrained(tmp_path / "broken")
        path = write_lines(tmp_path / "c.jsonl", [{"prompt": "p", "answer": "a"}])
        done = run_score("--model", tmp_path / "broken", path, "-o", tmp_path / "s.jsonl")
        assert done.code == 1
        assert f"{path}, line 1, answer: expected a finite score, broken gives nan" in done.stderr

    def test_help_knows_all_commands(self) -> None:
        found = run_cli(["rm_lightning", "--help"])
        assert found.code == 0
        assert all(f"\n    {name} " in found.stdout for name in ("fit", "validate", "test"))
        assert "\n  score " in found.stdout
        assert "Example: python -m rm_lightning score" in " ".join(
            run_cli(["rm_lightning", "score", "--help"]).stdout.split()
        )


@pytest.mark.slow
class TestKilled:
    def test_the_same_command_ends_with_the_same_bytes(self, models: list[str], dataset: Path, tmp_path: Path) -> None:
        environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)}
        command = [
            sys.executable,
            "-m",
            "rm_lightning",
            "score",
            "--device=cpu",
            "--model",
            models[0],
            str(dataset),
            "-o",
        ]
        subprocess.run([*command, tmp_path / "whole.jsonl"], check=True, env=environment, capture_output=True)
        output, sidecar = tmp_path / "scores.jsonl", tmp_path / "scores.jsonl.part.json"
        running = subprocess.Popen([*command, output], env=environment, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not (sidecar.exists() and json.loads(sidecar.read_text())["taken"] >= 2 * CHUNK):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.005)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        assert not output.exists()
        taken = json.loads(sidecar.read_text())["taken"]
        assert 2 * CHUNK <= taken < 6 * CHUNK
        with (tmp_path / "scores.jsonl.part").open("a") as part:  # a kill within a write leaves this
            part.write('{"prompt": "0 The", "ans')
        resumed = subprocess.run([*command, output], check=True, env=environment, capture_output=True, text=True)
        assert f"goes on after {taken} answers" in resumed.stderr
        assert output.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
        skipped = sum(int(line.split()[1]) for line in resumed.stderr.splitlines() if line.startswith("skipped"))
        assert len(read_lines(output)) + skipped == 6 * CHUNK + 200
        assert {file.name for file in tmp_path.iterdir()} == {"scores.jsonl", "whole.jsonl"}

    def test_what_changed_is_done_again_and_what_did_not_is_kept(self, models: list[str], tmp_path: Path) -> None:
        rows = [{"prompt": f"{n}", "answer": f"good {n % 7}"} for n in range(CHUNK + 200)]
        path, output = write_lines(tmp_path / "rows.jsonl", rows), tmp_path / "scores.jsonl"
        scorer = RewardScorer(models[0])

        def score(seed: int = 0, *, stop: bool = False) -> tuple[list[str], int]:
            """Score, or stop by Ctrl-C within the second chunk; what was told, and how many answers were done."""
            told, done = list[str](), 0

            def advance(amount: int) -> None:
                nonlocal done
                done += amount
                if stop and done > CHUNK:
                    raise KeyboardInterrupt

            made_with = {"model": "rm", "seed": seed}
            score_files(scorer, [path], Part(output), made_with=made_with, total=lambda *_: advance, tell=told.append)
            return told, done

        def stopped() -> None:
            with pytest.raises(KeyboardInterrupt):
                score(stop=True)
            assert len(read_lines(part)) == CHUNK

        part = tmp_path / "scores.jsonl.part"
        assert score() == ([], CHUNK + 200)
        whole = output.read_bytes()
        stopped()
        assert output.read_bytes() == whole  # the last result stays until the next is whole
        assert score() == ([f"{part}: goes on after {CHUNK} answers"], 200)
        assert output.read_bytes() == whole
        stopped()
        assert score(seed=1) == ([f"{part}: begun anew, as this changed since it was made: seed"], CHUNK + 200)
        stopped()
        write_lines(path, [*rows[:-1], {"prompt": "p", "answer": 5}])
        with pytest.raises(RewardModelError, match=f"line {CHUNK + 200}: expected `answer` to be text"):
            score()
        assert len(read_lines(part)) == CHUNK
        write_lines(path, [*rows, {"prompt": "p", "answer": "mended"}])
        assert score() == ([f"{part}: goes on after {CHUNK} answers"], 201)
        mended = output.read_bytes()
        score()
        assert output.read_bytes() == mended != whole
        stopped()
        write_lines(path, [{"prompt": "0", "answer": "another"}, *rows[1:]])
        assert score() == ([f"{part}: begun anew, as this changed since it was made: answers"], CHUNK + 200)
        assert read_lines(output)[0]["answer"] == "another"
        assert sorted(file.name for file in tmp_path.iterdir()) == ["rows.jsonl", "scores.jsonl"]

    def test_a_model_is_known_again_by_its_files(self, models: list[str], tmp_path: Path) -> None:
        copy = Path(shutil.copytree(models[0], tmp_path / "elsewhere"))
        assert model_digest(str(copy)) == model_digest(models[0]) != model_digest(models[1])
        (copy / "timings.jsonl").write_text('{"update": 1, "rollout": 0.5}\n')
        assert model_digest(str(copy)) == model_digest(models[0])
        weights = copy / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
        assert model_digest(str(copy)) != model_digest(models[0])
