"""Published preferences become tasks: rows written by hand, rows of our own formats, and a real file."""

from __future__ import annotations

import gzip
import json
import re
from collections import Counter
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lsplugin.dataset import Made, Task, read_dataset
from lsplugin.dialogue import messages_of
from lsplugin.errors import LspluginError
from lsplugin.formats import rows_for
from lsplugin.preferences import Message, Pair
from lsplugin.project import prepared
from lsplugin.published import Raw, read_rows
from lsplugin.render import render
from lsplugin.sources import SOURCES, tasks_from
from lsplugin.template import Spec
from tests.helpers import complaint, run_cli, write_json, write_lines

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

HH_TEXT = "\n\nHuman: Hi\n\nAssistant: Ho?\n\nHuman: Why?\n\nAssistant:"


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


ASK, SO, NO = user("Why?"), assistant("So."), assistant("No.")
TURNS = [user("Hi"), assistant("Ho?"), ASK]
TERSE = {"role": "system", "content": "Be terse."}


def row_of(prompt: object, chosen: object, rejected: object) -> dict[str, Any]:
    known = {} if prompt is None else {"prompt": prompt}
    return {**known, "chosen": chosen, "rejected": rejected}


def made_of(source: str, rows: Sequence[object], **options: Any) -> Made:
    raws = [Raw(number, f"file, line {number}", row) for number, row in enumerate(rows, start=1)]
    return tasks_from(source, raws, **options)


def told(task: dict[str, Any]) -> tuple[Any, str, str]:
    """Prompt, chosen, rejected, as meta tells them."""
    chosen = task["meta"]["original"]["chosen"]
    return task["prompt"], task[chosen], task[{"answer1": "answer2", "answer2": "answer1"}[chosen]]


@pytest.mark.parametrize(
    ("source", "row", "prompt", "in_chat"),
    [
        ("hh", row_of(None, HH_TEXT + " So.", HH_TEXT + " No."), HH_TEXT, TURNS),
        ("trl", row_of(None, HH_TEXT + " So.", HH_TEXT + " No."), HH_TEXT, TURNS),
        ("trl", row_of(HH_TEXT, " So.", " No."), HH_TEXT, TURNS),
        ("trl", row_of("Why?", " So.", " No."), "Why?", [ASK]),
        ("trl", row_of("Why?\n", "So.", "No."), "Why?\n", [user("Why?\n")]),
        ("trl", row_of(TURNS, "So.", "No."), TURNS, TURNS),
        ("trl", row_of(None, "Why? So.", "Why? No."), "Why?", [ASK]),
        ("trl", row_of(None, "<s>[INST] Why? [/INST]So.", "<s>[INST] Why? [/INST]No."), "<s>[INST] Why? [/INST]", None),
        ("trl", row_of([ASK], [SO], [NO]), "Why?", [ASK]),
        ("trl", row_of([TERSE, ASK], [SO], [NO]), [TERSE, ASK], [TERSE, ASK]),
        ("trl", row_of([ASK | {"name": "Al"}], [SO], [NO]), [ASK | {"name": "Al"}], [ASK | {"name": "Al"}]),
        ("trl", row_of("Why?", [SO], [NO]), "Why?", [ASK]),
        ("trl", row_of(None, [ASK, SO], [ASK, NO]), "Why?", [ASK]),
        ("trl", row_of([user("Hi")], [*TURNS[1:], SO], [*TURNS[1:], NO]), TURNS, TURNS),
        ("trl", row_of([ASK], [ASK, SO], [ASK, NO]), "Why?", [ASK]),
        ("trl", row_of("Hi", [*TURNS[1:], SO], [*TURNS[1:], NO]), TURNS, TURNS),
        ("ultrafeedback", row_of("Why?", [ASK, SO], [ASK, NO]), "Why?", [ASK]),
        ("ultrafeedback", row_of("Hi ...", [*TURNS, SO], [*TURNS, NO]), TURNS, TURNS),
        ("ultrafeedback", row_of("Ho?", [*TURNS[1:], SO], [*TURNS[1:], NO]), TURNS[1:], TURNS[1:]),
    ],
)
def test_every_shape(source: str, row: object, prompt: object, in_chat: object) -> None:
    assert [told(task) for task in made_of(source, [row]).tasks] == [(prompt, "So.", "No.")]
    chat = in_chat or [user(str(prompt))]
    assert [told(task) for task in made_of(source, [row], chat=True).tasks] == [(chat, "So.", "No.")]


@pytest.mark.parametrize(
    ("chosen", "rejected", "prompt", "better", "worse"),
    [
        ("Tell me a joke\nA man", "Tell me a joke Why", "Tell me a joke", "\nA man", "Why"),
        ("Was it? Good.", "Was it? Great.", "Was it?", "Good.", "Great."),
        ("Was it? The good.", "Was it? The bad.", "Was it? The", "good.", "bad."),
        ("\u597d\u5417\uff1f\u5f88\u597d", "\u597d\u5417\uff1f\u4e0d", "\u597d\u5417\uff1f", "\u5f88\u597d", "\u4e0d"),
        ("def f():\n    return 1", "def f():\n    return 2", "def f():\n    return", "1", "2"),
    ],
)  # fmt: skip
def test_texts_without_a_prompt_part_between_words(
    chosen: str, rejected: str, prompt: str, better: str, worse: str
) -> None:
    [task] = made_of("trl", [row_of(None, chosen, rejected)]).tasks
    assert told(task) == (prompt, better, worse)


EARLIER = "the dialogues differ before the last answer"


@pytest.mark.parametrize(
    ("source", "row", "reason"),
    [
        ("trl", row_of("p", "a", "a "), "the answers are identical"),
        ("trl", row_of("p", "a", " \n"), "an answer is empty"),
        ("trl", row_of(" ", "a", "b"), "the prompt is empty"),
        ("trl", row_of("p", "a \ud83d", "b"), "half a character (a lone surrogate), which no file can keep"),
        ("trl", row_of(None, "One", "Two"), "the texts begin with no prompt in common"),
        ("trl", row_of(None, "p a b", "p a"), "one text is the beginning of the other, so where its answer begins is not known"),
        ("trl", row_of(None, "[INST]q[/INST]a", "[INST]q[/INST]b[/INST]"), EARLIER),
        ("hh", row_of(None, HH_TEXT + " So.", "\n\nHuman: Hey\n\nAssistant: No."), EARLIER),
        ("hh", row_of(None, HH_TEXT + " So.\n\nHuman: Oh", HH_TEXT + " No."), "the human speaks after the last answer"),
        ("ultrafeedback", row_of("Why?", [ASK, SO], [user("Hm?"), NO]), EARLIER),
        ("ultrafeedback", row_of("Why?", [ASK, SO, ASK, SO], [ASK, NO]), EARLIER),
        ("ultrafeedback", row_of("Why?", [ASK, SO, ASK], [ASK, SO, user("Hm?")]), "the last message is not the assistant's"),
        ("ultrafeedback", row_of("Why?", [ASK, SO], [ASK, SO]), "the answers are identical"),
        ("trl", row_of(None, [SO], [NO]), "the prompt is empty"),
    ],
)  # fmt: skip
def test_what_holds_no_comparison_is_dropped_with_a_reason(source: str, row: object, reason: str) -> None:
    good = row_of("Why?", [ASK, SO], [ASK, NO]) if source != "hh" else row_of(None, HH_TEXT + "a", HH_TEXT + "b")
    made = made_of(source, [row, good, row])
    assert (made.rows, len(made.tasks), made.dropped) == (3, 1, {reason: 2})
    assert made.tasks[0]["meta"]["original"]["row"] == 2


@pytest.mark.parametrize(
    ("source", "row", "said"),
    [
        ("trl", 7, "expected an object with chosen and rejected, found the number 7"),
        ("trl", {"prompt": "p", "chosen": "a"}, "expected `rejected` to be text or a list of .* messages, found nothing"),
        ("trl", row_of(5, "a", "b"), "expected `prompt` to be text or a list .* found the number 5"),
        ("trl", row_of("p", "a", [NO]), "expected `chosen` and `rejected` to be both texts or both messages"),
        ("trl", row_of("p", [{"from": "gpt", "value": "a"}], [NO]), "expected `chosen` to be text or a list of .* found a list"),
        ("trl", row_of("p", [], []), "expected `chosen` to be"),
        ("hh", row_of("p", "a", "b"), "expected `chosen` to be a transcript with 'Assistant:' turns, found the text 'a'"),
        ("hh", row_of(None, HH_TEXT, None), "expected `rejected` to be a transcript"),
        ("ultrafeedback", row_of("p", "a", "b"), "expected `chosen` to be a list of .* messages, found the text 'a'"),
    ],
)  # fmt: skip
def test_another_shape_is_one_line_or_counted(source: str, row: object, said: str, tmp_path: Path) -> None:
    good = row_of("Why?", [ASK, SO], [ASK, NO]) if source != "hh" else row_of(None, HH_TEXT + "a", HH_TEXT + "b")
    file = write_lines(tmp_path / "rows.jsonl", [good, row])
    command: list[str | Path] = ["lsplugin", "dataset", "from", source, file, "-o", tmp_path / "made.json"]
    found = complaint(command)
    assert found.startswith(f"{file}, line 2: expected ")
    assert re.search(said, found)
    assert found.endswith("; --skip-bad leaves such rows out")
    assert not (tmp_path / "made.json").exists()
    result = run_cli([*command, "--skip-bad"])
    assert re.search(r"\ntasks +1\ndropped: of the wrong shape +1\nrows +2\n", result.stderr)
    assert len(read_dataset(tmp_path / "made.json")) == 1


def test_what_is_small_is_kept_in_meta() -> None:
    row = {
        "prompt": "p", "chosen": "a", "rejected": "b", "score_chosen": 4.5, "score_rejected": 1, "margin": 0.5,
        "probability": 0.8, "id": "x7", "row": 99, "safe": True, "note": None, "nan": float("nan"),
        "story": "long " * 99, "meta": {"task": 1}, "messages": [ASK],
    }  # fmt: skip
    [task] = made_of("trl", [row]).tasks
    original = task["meta"]["original"]
    assert task["meta"]["source"] == "trl"
    assert original == {
        "chosen": original["chosen"], "row": 1, "score_chosen": 4.5, "score_rejected": 1, "margin": 0.5, "probability": 0.8,
        "id": "x7", "safe": True,
    }  # fmt: skip
    assert set(task) == {"prompt", "answer1", "answer2", "meta"}


ROWS = [row_of(f"question {number}", f"good {number}", f"bad {number}") for number in range(2000)]


def test_the_place_of_the_chosen_answer_tells_nothing() -> None:
    """Half of them stand first, also in runs; a row's place in the file is no part of the draw, the seed is."""

    def sides(rows: list[dict[str, Any]], seed: int = 0) -> dict[str, str]:
        return {task["prompt"]: task["meta"]["original"]["chosen"] for task in made_of("trl", rows, seed=seed).tasks}

    drawn = sides(ROWS)
    first = [side == "answer1" for side in drawn.values()]
    assert 900 < sum(first) < 1100  # 4.5 standard deviations of a fair coin
    assert 900 < sum(one == two for one, two in pairwise(first)) < 1100
    assert sides(ROWS[::-1]) == drawn
    other = sides(ROWS, seed=1)
    assert 900 < sum(drawn[prompt] == other[prompt] for prompt in drawn) < 1100


def test_the_place_is_the_same_in_chat() -> None:
    plain, chat = (made_of("trl", ROWS[:50], chat=chat).tasks for chat in (False, True))
    assert [task["meta"] for task in plain] == [task["meta"] for task in chat]
    assert [task["answer1"] for task in plain] == [task["answer1"] for task in chat]


def test_a_limit_draws_at_random_and_is_counted() -> None:
    rows = [*ROWS, row_of("p", "a", "a")]
    made = made_of("trl", rows, limit=300)
    numbers = [task["meta"]["original"]["row"] for task in made.tasks]
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 300
    assert 850 < sum(numbers) / 300 < 1150  # 4.5 standard deviations about the middle of 2000
    assert made.dropped == {"not among the 300 drawn": 1700, "the answers are identical": 1}
    assert made.rows == 2001
    whole = {task["meta"]["original"]["row"]: task for task in made_of("trl", rows).tasks}
    assert made.tasks == [whole[number] for number in numbers]
    sides = Counter(task["meta"]["original"]["chosen"] for task in made.tasks)
    assert 100 < sides["answer1"] < 200
    more = {task["meta"]["original"]["row"] for task in made_of("trl", rows, limit=400).tasks}
    assert set(numbers) < more
    assert {task["meta"]["original"]["row"] for task in made_of("trl", rows, limit=300, seed=1).tasks} != set(numbers)
    assert made_of("trl", ROWS, limit=2000).dropped == {}


def test_packed_or_not_list_or_lines(tmp_path: Path) -> None:
    """The file's beginning says what it is: lines are often called .json."""
    lines = "".join(json.dumps(row) + "\n" for row in ROWS[:9])
    texts = {"a.json": json.dumps(ROWS[:9], indent=1), "b.jsonl": lines, "c.json": f"\ufeff\n{lines}"}
    for name, text in texts.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(text.encode()))
        for file in (tmp_path / name, tmp_path / f"{name}.gz"):
            assert [raw.value for raw in read_rows(file)] == ROWS[:9]
    assert next(read_rows(tmp_path / "a.json.gz")).where == f"{tmp_path / 'a.json.gz'}, row 1"
    assert next(read_rows(tmp_path / "c.json")).where == f"{tmp_path / 'c.json'}, line 2"


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl.gz", b"{}\n", "a.jsonl.gz, after line 0: expected a whole gzip file"),
        ("a.jsonl.gz", gzip.compress(json.dumps(ROWS[0]).encode() + b"\n", mtime=0)[:-9], "expected a whole gzip file"),
        ("a.jsonl", b"", "a.jsonl, read as trl: expected answers to compare, found none in 0 rows (the file is empty)"),
        ("a.jsonl", b'{"prompt": "p", "chosen": "a", "rejected": "a"}', "in 1 rows (the answers are identical: 1)"),
        ("a.jsonl", b"\n{]\n", "a.jsonl, line 2: expected one JSON object a line"),
        ("a.json", b"[\n{]\n", "a.json, line 2: expected JSON"),
        ("a.json", b"[" * 99999, "expected JSON of ordinary size"),
    ],
)
def test_what_is_no_file_of_rows_is_one_line(name: str, content: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    assert said in complaint(["lsplugin", "dataset", "from", "trl", tmp_path / name, "-o", tmp_path / "made.json"])
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_other_mistakes(tmp_path: Path) -> None:
    file = write_lines(tmp_path / "a.jsonl", ROWS[:2])
    command = ["lsplugin", "dataset", "from"]
    assert "expected one of hh, trl, ultrafeedback to read, found 'openai'" in complaint([*command, "openai", file])
    assert "a.jsonl: expected a file to write, found one that is read" in complaint([*command, "trl", file, "-o", file])
    assert "none.jsonl: no such file" in complaint([*command, "hh", tmp_path / "none.jsonl"])


@pytest.mark.parametrize("command", ["from", "merge"])
def test_help_shows_an_example(command: str) -> None:
    result = run_cli(["lsplugin", "dataset", command, "--help"])
    assert f"Example: lsplugin dataset {command}" in re.sub(r"\s+", " ", result.stdout)


def test_a_transcript_becomes_turns() -> None:
    assert messages_of(HH_TEXT) == TURNS
    assert messages_of(f"Be terse.{HH_TEXT}") == [TERSE, *TURNS]
    assert messages_of("Why?") == [ASK]
    assert messages_of("\n\nAssistant: Ho?\n\nHuman: a\n\nb \n\nAssistant:") == [assistant("Ho?"), user("a\n\nb ")]


MARKERS = ("\n\nHuman:", "\n\nAssistant:", "[/INST]")
WORDS = st.text(alphabet=st.sampled_from("ab:\n ") | st.characters(), max_size=12) | st.sampled_from(
    [*MARKERS, "x\n\nAssistant: y", "\n\nHuman: hi\n\nAssistant:", "Assistant:", "a b", "a"]
)
MESSAGES = st.lists(st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["user", "assistant"]), WORDS),
                    min_size=1, max_size=4)  # fmt: skip
PAIRS = st.builds(Pair, WORDS | MESSAGES, WORDS, WORDS)


def plain(prompt: str | list[Message]) -> str | list[Message]:
    """What a prompt is shown as: one turn of a user's is a text."""
    is_alone = not isinstance(prompt, str) and len(prompt) == 1 and prompt[0]["role"] == "user"
    return prompt[0]["content"] if is_alone else prompt  # type: ignore[index,return-value]


def says_something(pair: Pair) -> bool:
    """Whether there is a prompt, and two answers that differ in more than the blanks around them; all of whole characters."""
    turns = [pair.prompt] if isinstance(pair.prompt, str) else [turn["content"] for turn in pair.prompt]
    answers = {pair.chosen.strip(), pair.rejected.strip()}
    is_whole = not re.search("[\ud800-\udfff]", "".join([*turns, *answers]))
    return is_whole and any(turn.strip() for turn in turns) and "" not in answers and len(answers) == 2


def back(name: str, pair: Pair, **options: Any) -> list[tuple[Any, str, str]]:
    """A pair as a row of that format, and what the row becomes: what people can be asked, counted."""
    source = name if name in SOURCES else "trl"
    rows = [json.loads(json.dumps(row)) for row in rows_for(name, [pair])]
    made = made_of(source, rows, **options)
    assert made.rows == 1 == len(made.tasks) + made.dropped.total()
    for task in made.tasks:
        chat = not isinstance(task["prompt"], str)
        prepared([Task({key: task[key] for key in task if key != "meta"})], CHAT if chat else TEXT, path="made")
    return [told(task) for task in made.tasks]


TEXT, CHAT = render(), render(Spec(chat=True))


@given(PAIRS)
def test_conversations_come_back(pair: Pair) -> None:
    for name in ("trl-conversational", "ultrafeedback"):
        expected = [(plain(pair.prompt), pair.chosen, pair.rejected)] if says_something(pair) else []
        assert back(name, pair) == expected
        messages = [user(pair.prompt)] if isinstance(pair.prompt, str) else pair.prompt
        assert [prompt for prompt, *_ in back(name, pair, chat=True)] == [messages] * len(expected)


@given(PAIRS)
def test_explicit_prompts_come_back(pair: Pair) -> None:
    """A blank that an answer begins with is the one that parts it from the prompt, wherever it came from."""
    found = back("trl", pair)
    assert len(found) == says_something(pair)
    for prompt, *answers in found:
        assert prompt == plain(pair.prompt)
        for answer, known in zip(answers, (pair.chosen, pair.rejected), strict=True):
            assert answer in ((known,) if known[0] != " " else (known, known[1:]))


@given(PAIRS)
def test_prompts_inside_the_texts_come_back(pair: Pair) -> None:
    """Of texts, as far as it can be known: answers that begin alike begin with the prompt. Nothing is lost."""
    found = back("trl-implicit", pair)
    if not isinstance(pair.prompt, str):
        assert found == ([(plain(pair.prompt), pair.chosen, pair.rejected)] if says_something(pair) else [])
        return
    for prompt, *answers in found:
        for answer, known in zip(answers, (pair.chosen, pair.rejected), strict=True):
            assert "".join((prompt + answer).split()) == "".join((pair.prompt + known).split())
    starts = [answer[:1] for answer in (pair.chosen, pair.rejected)]
    is_known = starts[0] != starts[1] and not any(start.isspace() for start in starts)
    if says_something(pair) and is_known and not any(marker in pair.prompt for marker in MARKERS):
        assert found == [(pair.prompt.removesuffix(" "), pair.chosen, pair.rejected)]


@given(PAIRS)
def test_transcripts_come_back(pair: Pair) -> None:
    try:
        found = back("hh", pair, chat=True)
    except LspluginError:
        assume(False)  # the format cannot hold it
    is_transcript = isinstance(pair.prompt, str) and pair.prompt.startswith("\n\n") and pair.prompt.endswith(MARKERS[1])
    if is_transcript:
        assert [prompt for prompt, *_ in back("hh", pair)] == [pair.prompt] * len(back("hh", pair))
        return
    messages = [user(pair.prompt)] if isinstance(pair.prompt, str) else pair.prompt
    expected = [(messages, pair.chosen.strip(), pair.rejected.strip())] if says_something(pair) else []
    assert found == expected


@pytest.mark.data
@pytest.mark.parametrize("chat", [False, True])
def test_every_row_of_a_real_file_is_a_task_or_counted(real_data: Path, tmp_path: Path, chat: bool) -> None:
    file = real_data / "prefs" / "hh-rlhf" / "harmless-base.test.jsonl.gz"
    expected, dropped = {}, Counter[str]()
    with gzip.open(file, "rt", encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            (before, _, better), (other, _, worse) = (
                json.loads(line)[name].rpartition("\n\nAssistant:") for name in ("chosen", "rejected")
            )
            if before != other:
                dropped[EARLIER] += 1
            elif not better.strip() or not worse.strip():
                dropped["an answer is empty"] += 1
            else:
                expected[number] = (f"{before}\n\nAssistant:", better.strip(), worse.strip())
    out = tmp_path / "made.json"
    result = run_cli(["lsplugin", "dataset", "from", "hh", file, "-o", out, *(["--chat"] if chat else [])])
    assert result.code == 0, result.stderr
    table = dict(re.findall(r"^(\S.*?)  +(\d+)$", result.stderr, flags=re.MULTILINE))
    assert table == {
        "tasks": str(len(expected)),
        **{f"dropped: {reason}": str(count) for reason, count in dropped.items()},
        "rows": "2312",
    }
    assert len(expected) + dropped.total() == 2312
    tasks = json.loads(out.read_text(encoding="utf-8"))
    found = {task["meta"]["original"]["row"]: told(task) for task in tasks}
    if chat:
        names = {"user": "\n\nHuman:", "assistant": "\n\nAssistant:"}
        for number, (messages, *answers) in found.items():
            assert {turn["role"] for turn in messages} <= set(names)
            said = "".join(names[turn["role"]] + turn["content"] for turn in messages) + "\n\nAssistant:"
            blind = [re.sub(r"(Human|Assistant): +", r"\1:", text) for text in (said, expected[number][0])]
            assert blind[0] == blind[1]
            assert tuple(answers) == expected[number][1:]
    else:
        assert found == expected
    assert 1040 < sum(task["meta"]["original"]["chosen"] == "answer1" for task in tasks) < 1265
    assert len(prepared(read_dataset(out), CHAT if chat else TEXT, path=out)) == len(expected)


def test_a_dataset_of_several_kinds_of_rows_in_one_config(tmp_path: Path) -> None:
    rows = [row_of("Why?", " So.", " No."), row_of(None, [*TURNS, SO], [*TURNS, NO]), row_of(HH_TEXT, "So.", "No.")]
    file = write_json(tmp_path / "rows.json", rows)
    result = run_cli(["lsplugin", "dataset", "from", "trl", file, "--chat", "-o", tmp_path / "made.json"])
    assert "wrote" in result.stderr
    assert "3 tasks; 3 prompts are conversations, which `lsplugin render --chat` shows" in result.stderr
    shown = prepared(read_dataset(tmp_path / "made.json"), CHAT, path="made.json")
    assert [task.data["prompt"] for task in shown] == [[ASK], TURNS, TURNS]
