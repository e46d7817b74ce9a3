"""Answers to compare: distinct, seeded one by one, chosen by reward, and kept when the command is killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from lsplugin.dataset import check_tasks, keyed, read_dataset
from lsplugin.plan import Plan, planned
from lsplugin.prepare import displayed
from lsplugin.render import build
from lsplugin.template import Spec
from ppo.answers import answer, answer_all, uniforms
from ppo.choice import Choice
from ppo.errors import PPOError
from ppo.generate import generate
from ppo.reward import Members
from ppo.select import disputed, select
from ppo.settings import Sampling
from ppo.work import WorkFile
from rm_lightning.backbone import MEMBERS_KEY, load_scorer, load_tokenizer
from rm_lightning.scorer import RewardScorer
from tests.helpers import complaint, read_lines, run_cli, write_lines
from tests.worlds import WORDS, word_policy

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lsplugin.preferences import Prompt
    from ppo.policy import Policy

SAMPLING = Sampling(max_new_tokens=4)
PROMPTS = ["a", "b c", "d e a"] * 4


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Policy:
    return word_policy(tmp_path_factory.mktemp("policy") / "policy")


@pytest.fixture(scope="module")
def models(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Two reward models with heads drawn at random; the second is an ensemble of three."""
    folders = []
    for seed, heads in ((0, 1), (1, 3)):
        torch.manual_seed(seed)
        tokenizer = load_tokenizer(policy.name)
        model = load_scorer(policy.name, tokenizer, new=True)
        model.score = torch.nn.Linear(model.score.in_features, heads, bias=False)  # type: ignore[union-attr]
        model.config.num_labels = heads
        if heads > 1:
            setattr(model.config, MEMBERS_KEY, heads)
        folder = tmp_path_factory.mktemp("models") / f"rm{seed}"
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        folders.append(str(folder))
    return folders


def texts_of(row: dict[str, Any]) -> list[str]:
    return [text for name, text in row.items() if name.startswith("answer")]


def count_a(prompts: Sequence[Prompt], answers: Sequence[str]) -> torch.Tensor:
    """How often an answer says a, and how long it is, as two members."""
    return torch.tensor([[float(text.split().count("a")), float(len(text.split()))] for text in answers])


class TestAnswers:
    def test_answers_are_distinct_and_none_is_empty(self, policy: Policy) -> None:
        rows, dropped = generate(policy, PROMPTS, choice=Choice(answers=3), sampling=SAMPLING, seed=0)
        assert not dropped
        assert [row["prompt"] for row in rows] == PROMPTS
        for row in rows:
            answers = texts_of(row)
            assert len(answers) == len(set(answers)) == 3
            assert all(answer.strip() for answer in answers)
            assert set(" ".join(answers).split()) <= set(WORDS)
            assert row["meta"]["models"] == dict.fromkeys(["answer1", "answer2", "answer3"], policy.name)
            assert row["meta"]["sampling"]["max_new_tokens"] == 4

    def test_an_answer_is_its_own_whatever_is_asked_along_with_it(self, policy: Policy) -> None:
        whole, _ = generate(policy, PROMPTS, choice=Choice(answers=3), sampling=SAMPLING, seed=1)
        for batch_size in (1, 7, 1000):
            assert whole == generate(
                policy, PROMPTS, choice=Choice(answers=3), sampling=SAMPLING, seed=1, batch_size=batch_size
            )[0]  # fmt: skip
        few, _ = generate(policy, PROMPTS[:5], choice=Choice(answers=3), sampling=SAMPLING, seed=1)
        assert few == whole[:5]
        other, _ = generate(policy, PROMPTS, choice=Choice(answers=3), sampling=SAMPLING, seed=2)
        assert [texts_of(row) for row in other] != [texts_of(row) for row in whole]
        same = [texts_of(row) for row in whole if row["prompt"] == "a"]
        assert len({tuple(texts) for texts in same}) > 1  # the same prompt again is asked anew

    def test_answers_stand_in_the_order_of_their_prompts(self, policy: Policy) -> None:
        prompts = ["a", "b c d e", "b", "c d"]
        found = answer_all(policy, prompts, 3, sampling=SAMPLING, seed=4, batch_size=5, advance=lambda _: None)
        places = [(number, own) for number in range(4) for own in range(3)]
        alone = [answer(policy, [prompts[place[0]]], [place], sampling=SAMPLING, seed=4) for place in places]
        assert found.texts == [one.texts[0] for one in alone]
        assert found.length.tolist() == [float(one.length) for one in alone]
        assert found.ended.tolist() == [bool(one.ended) for one in alone]

    def test_uniforms_are_uniform_and_of_no_others(self) -> None:
        places = [(number, own) for number in range(50) for own in range(20)]
        found = uniforms(-3, places, 30)
        assert found.dtype == torch.float32
        assert len({tuple(row) for row in found.tolist()}) == 1000
        counts = torch.histc(found, bins=10, min=0, max=1)
        assert ((counts - 3000) ** 2 / 3000).sum() < 27.9  # chi-squared of 9 degrees of freedom, p = 0.001
        assert found.corrcoef().fill_diagonal_(0).abs().max() < 0.85
        assert torch.equal(uniforms(-3, [(7, 3)], 12)[0], found[7 * 20 + 3, :12])

    def test_prompts_without_enough_answers_are_counted(self, policy: Policy) -> None:
        """Greedy sampling has one answer to give, so there is nothing to compare."""
        prompts: list[Prompt] = ["a", " ", "b", "c\ud83d", [{"role": "user", "content": ""}]]
        rows, dropped = generate(
            policy, prompts, choice=Choice(), sampling=Sampling(max_new_tokens=4, top_k=1), seed=0, batch_size=4
        )
        assert rows == []
        assert dropped == {
            "the model gave fewer than 2 distinct answers that are not empty in 8 rounds": 2,
            "the prompt is empty": 2,
            "the prompt holds half a character (a lone surrogate), which no tokenizer reads": 1,
        }

    def test_what_an_answer_is_beside_its_text(self, policy: Policy) -> None:
        """Lengths count EOS; an answer that ended is shorter than the limit or ends there."""
        found = answer_all(policy, ["a", "b"], 50, sampling=SAMPLING, seed=0, batch_size=30, advance=lambda _: None)
        words = torch.tensor([len(text.split()) for text in found.texts])
        assert len(words) == 100
        assert 0.2 < found.ended.float().mean() < 1
        assert bool((found.length <= 4).all())
        assert bool((found.length[~found.ended] == 4).all())
        assert bool(
            (words <= found.length - found.ended.float()).all()
        )  # <pad> and <unk> are tokens, too, without a text


class TestSelect:
    SCORES = torch.tensor([[0.0, 0.0], [3.0, 1.0], [1.0, 9.0], [-1.0, -3.0], [2.0, 2.0]])  # means 0, 2, 5, -2, 2

    @pytest.mark.parametrize(
        ("name", "kept", "expected"),
        [
            ("first", 2, [0, 1]),
            ("best", 1, [2]),
            ("best", 3, [1, 2, 4]),  # of two alike the first
            ("max-min", 2, [2, 3]),
            ("max-min", 3, [2, 3, 4]),  # ranking 2 1 4 0 3: first, middle, last
            ("uncertain", 2, [1, 2]),  # differences of (2, -8): the members are 10 apart
            ("uncertain", 3, [0, 1, 2]),  # all others add as much: the first
        ],
    )
    def test_by_hand(self, name: str, kept: int, expected: list[int]) -> None:
        choice = Choice(answers=kept, candidates=5, select=name)
        assert select(choice, 5, self.SCORES, draw="0 0") == expected

    def test_greedy_choice_starts_with_the_most_disputed_pair_of_all(self) -> None:
        scores = torch.randn(7, 4, generator=torch.Generator().manual_seed(0))
        gaps = {(i, j): float((scores[i] - scores[j]).std()) for i, j in combinations(range(7), 2)}
        pair = max(gaps, key=gaps.__getitem__)
        assert sorted(disputed(scores, 2)) == list(pair)
        third = max(set(range(7)) - set(pair), key=lambda k: sum(gaps[min(i, k), max(i, k)] for i in pair))
        assert sorted(disputed(scores, 3)) == sorted([*pair, third])

    def test_random_takes_all_alike(self) -> None:
        choice = Choice(answers=2, candidates=5, select="random")
        found = [tuple(select(choice, 5, None, draw=f"0 {number}")) for number in range(2000)]
        assert len(set(found)) == 10
        assert max(found.count(pair) for pair in set(found)) < 260  # 200 expected, deviation 13
        assert found[:9] == [tuple(select(choice, 5, None, draw=f"0 {number}")) for number in range(9)]

    def test_the_side_says_nothing_of_the_reward(self, policy: Policy) -> None:
        rows, _ = generate(
            policy,
            ["a", "b", "c"] * 70,
            choice=Choice(candidates=6, select="max-min"),
            sampling=SAMPLING,
            seed=0,
            members=count_a,
        )
        higher = [row["meta"]["rewards"]["answer1"] > row["meta"]["rewards"]["answer2"] for row in rows]
        assert len(rows) == 210
        assert 75 < sum(higher) < 135  # 105 expected, deviation 7.2

    def test_kept_answers_are_those_of_the_candidates(self, policy: Policy) -> None:
        def made(answers: int, name: str) -> list[dict[str, Any]]:
            choice = Choice(answers=answers, candidates=8, select=name)
            return generate(policy, PROMPTS, choice=choice, sampling=SAMPLING, seed=0, members=count_a)[0]

        every, _ = generate(policy, PROMPTS, choice=Choice(answers=5), sampling=SAMPLING, seed=0, members=count_a)
        for first, best, apart in zip(made(2, "first"), made(1, "best"), made(2, "max-min"), strict=True):
            assert first["meta"]["candidates"] == best["meta"]["candidates"] >= 5
            assert set(best["meta"]["models"]) == {"answer1"}
            rewards = list(apart["meta"]["rewards"].values())
            assert best["meta"]["rewards"]["answer1"] == max(rewards)
            assert max(rewards) >= max(first["meta"]["rewards"].values())
            assert min(rewards) <= min(first["meta"]["rewards"].values())
        for row in every:
            for name, reward in row["meta"]["rewards"].items():
                count, length = count_a([""], [row[name]])[0].tolist()
                assert reward == (count + length) / 2
                assert row["meta"]["spread"][name] == pytest.approx(abs(count - length) / 2**0.5, abs=1e-5)

    def test_members_are_heads_folders_and_functions(
        self, models: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(tmp_path)
        (tmp_path / "sizes.py").write_text("def letters(prompts, answers):\n    return [len(a) for a in answers]\n")
        asked = ["a", "a", "b"], ["b c", "d", ""]
        found = Members([models[1], "sizes:letters", models[0]])(*asked)
        assert found.shape == (3, 5)
        assert found[:, 3].tolist() == [3, 1, 0]
        assert torch.equal(found[:, :3], RewardScorer(models[1]).all(*asked))
        assert torch.equal(found[:, 4], RewardScorer(models[0])(*asked))
        model = AutoModelForSequenceClassification.from_pretrained(models[0])
        model.score.weight.data.fill_(torch.nan)
        model.save_pretrained(tmp_path / "broken")
        load_tokenizer(models[0]).save_pretrained(tmp_path / "broken")
        with pytest.raises(PPOError, match=r"reward .*broken: expected finite numbers, got nan"):
            Members([str(tmp_path / "broken")])(*asked)


class TestCommand:
    @pytest.fixture
    def here(self, policy: Policy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """A command in a folder with prompts."""
        monkeypatch.chdir(tmp_path)
        write_lines(tmp_path / "prompts.jsonl", [{"prompt": "a b"}, {"prompt": "c"}])
        sizes = ["--max-new-tokens", "4", "--seed", "5"]
        return ["ppo", "generate", "--policy", policy.name, "--prompts", "prompts.jsonl", *sizes]

    def test_lsplugin_takes_what_it_writes(self, here: list[str], models: list[str], tmp_path: Path) -> None:
        choice = ["--candidates", "8", "--select", "uncertain", "--reward", models[1], "--reward", models[0]]
        for more in ([], choice):
            assert run_cli([*here, *more]).code == 0
            tasks, config = read_dataset("dataset.json"), build(Spec())
            check_tasks(tasks, config, path="dataset.json")
            assert [task.data["prompt"] for task in tasks] == ["a b", "c"]
            for task in planned(keyed(tasks), config, Plan()):
                assert set(task.data) == {"prompt", "answer1", "answer2"} == set(displayed(config))
            first = Path("dataset.json").read_bytes()
            assert run_cli([*here, *more, "-o", "new/folder/again.json"]).code == 0
            assert Path("new/folder/again.json").read_bytes() == first
        meta = tasks[0].meta
        assert meta["select"] == "uncertain"
        assert meta["candidates"] > 2
        assert set(meta["reward_digests"]) == set(models)
        assert len(meta["digest"]) == 12
        assert set(meta["spread"]) == {"answer1", "answer2"}
        assert sorted(file.name for file in tmp_path.iterdir()) == ["dataset.json", "new", "prompts.jsonl"]

    def test_mistakes_are_one_line(self, here: list[str], models: list[str], tmp_path: Path) -> None:
        (tmp_path / "none.jsonl").write_text("\n")
        write_lines(tmp_path / "bad.jsonl", [{"prompt": "a"}, {"prompt": 3}])
        cases = [
            (["--answers", "0"], "--answers 0: a comparison needs 2 answers or more"),
            (["--answers", "1"], "--answers 1: a comparison needs 2 answers or more (1 is for --select best"),
            (["--answers", "3", "--candidates", "2"], "--candidates 2 is less than --answers 3"),
            (["--select", "worst"], "--select worst: expected one of first, random, max-min, uncertain, best"),
            (
                ["--select", "best"],
                "--select best has nothing to choose from: --candidates 2 is no more than --answers 2",
            ),
            (
                ["--select", "max-min", "--candidates", "4"],
                "runs/rm: no such folder; `python -m rm_lightning fit` makes it",
            ),
            (
                ["--select", "uncertain", "--candidates", "4", "--reward", models[0]],
                "--select uncertain: expected two members or more, who can disagree, found one",
            ),
            (["--reward", "no/such"], "no/such"),
            (["--reward", "runs/rm"], "runs/rm: no such folder; `python -m rm_lightning fit` makes it"),
            (["--reward", "nowhere:f"], "there is no module nowhere"),
            (["--prompts", "none.jsonl"], "none.jsonl: no prompts in it"),
            (["--prompts", "bad.jsonl"], "bad.jsonl, line 2: expected `prompt` to be text or a list"),
            (["--prompts", "gone.jsonl"], "gone.jsonl: no such file"),
            (["-o", "."], "expected a file to write, found a folder"),
            (["-o", "memory://x.json"], "expected a local file"),
            (["-o", "prompts.jsonl"], "prompts.jsonl: it is another file of this command, which would be lost"),
            (["-o", "prompts.jsonl/x.json"], "prompts.jsonl: File exists"),
            (["--policy", "no/such"], "no/such"),
            (["--max-new-tokens", "16"], "--max-new-tokens 16 leaves no room for a prompt"),
        ]
        for more, said in cases:
            assert said in complaint([*here, *more])
        assert sorted(file.name for file in tmp_path.iterdir()) == ["bad.jsonl", "none.jsonl", "prompts.jsonl"]


@pytest.mark.slow
class TestKilled:
    def test_the_same_command_ends_with_the_same_bytes(self, policy: Policy, models: list[str], tmp_path: Path) -> None:
        rows = [{"prompt": " ".join(WORDS[: n % 5 + 1]) if n % 40 else ""} for n in range(301)]
        prompts = write_lines(tmp_path / "prompts.jsonl", rows)
        command = [
            "ppo", "generate", "--accelerator", "cpu", "--policy", policy.name, "--prompts", str(prompts),
            "--max-new-tokens", "4", "--candidates", "4", "--select", "max-min", "--reward", models[1], "-o",
        ]  # fmt: skip
        assert run_cli([*command, tmp_path / "whole.json"]).code == 0
        output, part = tmp_path / "dataset.json", tmp_path / "dataset.json.part"
        running = subprocess.Popen(
            [sys.executable, "-m", *command, output],
            env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parent.parent)},
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 120
        while not (part.exists() and part.read_bytes().count(b"\n") > 30):
            assert running.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL
        assert not output.exists()
        lines = part.read_bytes().splitlines(keepends=True)
        part.write_bytes(b"".join(lines[:30]) + lines[30][:20])  # a kill within a write leaves this: 29 results
        resumed = run_cli([*command, output])
        assert "goes on after 16 prompts" in resumed.stderr  # a batch
        assert "8 of 301 prompts left out: the prompt is empty" in resumed.stderr
        assert output.read_bytes() == (tmp_path / "whole.json").read_bytes()
        assert len(json.loads(output.read_text())) == 301 - 8
        assert {file.name for file in tmp_path.iterdir()} == {"dataset.json", "whole.json", "prompts.jsonl"}

    def test_what_changed_is_done_again(self, tmp_path: Path) -> None:
        told: list[str] = []

        def stopped(made_with: dict[str, Any]) -> WorkFile:
            work = WorkFile(tmp_path / "out.json")
            work.begin(made_with, size=2)
            work.add([1, 2])
            work.add([3])
            return work

        def begun(made_with: dict[str, Any], size: int = 2) -> list[Any]:
            return WorkFile(tmp_path / "out.json").begin(made_with, size=size, tell=told.append)

        part = stopped({"seed": 0}).path
        assert begun({"seed": 0}) == [1, 2]
        assert read_lines(part) == [{"seed": 0}, 1, 2]
        assert begun({"seed": 1}) == []
        assert not part.exists()
        assert told == [
            f"{part}: goes on after 2 prompts",
            f"{part}: begun anew, as this changed since it was made: seed",
        ]
        part.write_bytes(b'{"seed": 0}\n1\nnot JSON\n3\n')
        assert begun({"seed": 0}, 1) == [1]
        part.write_bytes(b"\xff\x00")
        assert begun({"seed": 0}) == []
