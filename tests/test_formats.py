"""Formats: rows written by hand, and the trainers that read them as the judges of what is readable."""

from __future__ import annotations

import hashlib
import json
import math
from typing import TYPE_CHECKING, Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lsplugin.dialogue import split_dialogues
from lsplugin.errors import LspluginError
from lsplugin.files import write_jsonl
from lsplugin.formats import FORMATS, dataset_info, rows_for
from lsplugin.preferences import Message, Pair

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase


def user(text: str) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    return {"role": "assistant", "content": text}


def system(text: str) -> Message:
    return {"role": "system", "content": text}


def human(text: str) -> dict[str, str]:
    return {"from": "human", "value": text}


def gpt(text: str) -> dict[str, str]:
    return {"from": "gpt", "value": text}


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


PLAIN = Pair("How was it?", "Good.", "Bad.", margin=2, probability=0.8, weight=3.0, meta={"task": 7})
TURNS = [user("How was it?"), assistant("Good."), user("And cold?")]
CHAT = Pair(TURNS, "Never.", "A bit.")
TEXT = "user: How was it?\n\nassistant: Good.\n\nuser: And cold?"
OTHER = Pair("Where?", "In Rome.", "No idea.", margin=0.5)

GOOD, BAD, NEVER, BIT = assistant("Good."), assistant("Bad."), assistant("Never."), assistant("A bit.")
ASK = [user("How was it?")]
AS_IT_IS = ["trl", "trl-implicit", "trl-unpaired", "trl-prompt-only", "openrlhf"]
"""Formats in which a text stays a text and a conversation a conversation."""
EXPLICIT = {"prompt": "How was it?", "chosen": " Good.", "rejected": " Bad.", "margin": 2.0}
EXPLICIT_CHAT = {"prompt": TURNS, "chosen": [NEVER], "rejected": [BIT], "margin": 0.0}
ROWS: dict[str, tuple[list[dict[str, Any]], list[dict[str, Any]]]] = {
    "pairs": (
        [{"prompt": "How was it?", "chosen": "Good.", "rejected": "Bad.", "margin": 2, "probability": 0.8, "weight": 3.0,
          "meta": {"task": 7}}],
        [{"prompt": TURNS, "chosen": "Never.", "rejected": "A bit."}],
    ),
    "trl": ([EXPLICIT], [EXPLICIT_CHAT]),
    "trl-implicit": (
        [{"chosen": "How was it? Good.", "rejected": "How was it? Bad.", "margin": 2.0}],
        [{"chosen": [*TURNS, NEVER], "rejected": [*TURNS, BIT], "margin": 0.0}],
    ),
    "trl-conversational": (
        [{"prompt": ASK, "chosen": [GOOD], "rejected": [BAD], "margin": 2.0}],
        [EXPLICIT_CHAT],
    ),
    "trl-unpaired": (
        [{"prompt": "How was it?", "completion": " Good.", "label": True},
         {"prompt": "How was it?", "completion": " Bad.", "label": False}],
        [{"prompt": TURNS, "completion": [NEVER], "label": True}, {"prompt": TURNS, "completion": [BIT], "label": False}],
    ),
    "trl-prompt-only": ([{"prompt": "How was it?"}], [{"prompt": TURNS}]),
    "hh": (
        [{"chosen": "\n\nHuman: How was it?\n\nAssistant: Good.", "rejected": "\n\nHuman: How was it?\n\nAssistant: Bad."}],
        [{"chosen": "\n\nHuman: How was it?\n\nAssistant: Good.\n\nHuman: And cold?\n\nAssistant: Never.",
          "rejected": "\n\nHuman: How was it?\n\nAssistant: Good.\n\nHuman: And cold?\n\nAssistant: A bit."}],
    ),
    "openai": (
        [{"input": {"messages": ASK}, "preferred_output": [GOOD], "non_preferred_output": [BAD]}],
        [{"input": {"messages": TURNS}, "preferred_output": [NEVER], "non_preferred_output": [BIT]}],
    ),
    "ultrafeedback": (
        [{"prompt": "How was it?", "prompt_id": sha("How was it?"), "chosen": [*ASK, GOOD], "rejected": [*ASK, BAD],
          "messages": [*ASK, GOOD]}],
        [{"prompt": TEXT, "prompt_id": sha(TEXT), "chosen": [*TURNS, NEVER], "rejected": [*TURNS, BIT],
          "messages": [*TURNS, NEVER]}],
    ),
    "openrlhf": ([EXPLICIT], [EXPLICIT_CHAT]),
    "llama-factory": (
        [{"conversations": [human("How was it?")], "chosen": gpt("Good."), "rejected": gpt("Bad.")}],
        [{"conversations": [human("How was it?"), gpt("Good."), human("And cold?")], "chosen": gpt("Never."),
          "rejected": gpt("A bit.")}],
    ),
    "axolotl": (
        [{"messages": ASK, "chosen": GOOD, "rejected": BAD}],
        [{"messages": TURNS, "chosen": NEVER, "rejected": BIT}],
    ),
    "rewardbench": (
        [{"prompt": "How was it?", "chosen": [*ASK, GOOD], "rejected": [*ASK, BAD]}],
        [{"prompt": TEXT, "chosen": [*TURNS, NEVER], "rejected": [*TURNS, BIT]}],
    ),
}  # fmt: skip


def test_every_format_has_its_rows_here() -> None:
    assert list(FORMATS) == list(ROWS)
    assert all(form.name == name and form.source.startswith("https://") for name, form in FORMATS.items())


@pytest.mark.parametrize("name", ROWS)
def test_rows(name: str) -> None:
    plain, chat = ROWS[name]
    assert list(rows_for(name, [PLAIN])) == plain
    assert list(rows_for(name, [CHAT])) == chat


@pytest.mark.parametrize("name", ROWS)
def test_every_turn_and_answer_is_there(name: str) -> None:
    written = json.dumps(list(rows_for(name, [CHAT])))
    answers = [] if name == "trl-prompt-only" else [CHAT.chosen, CHAT.rejected]
    assert [text for text in [*(turn["content"] for turn in TURNS), *answers] if text not in written] == []


def test_an_unknown_format_is_refused_at_once() -> None:
    with pytest.raises(LspluginError, match=r"expected a format, one of pairs, trl, .*; found 'trl2'"):
        rows_for("trl2", [])


def test_equal_prompts_in_a_row_are_one_prompt() -> None:
    pairs = [Pair(prompt, str(number), "no") for number, prompt in enumerate(["a", "a", "b", "a"])]
    assert [row["prompt"] for row in rows_for("trl-prompt-only", pairs)] == ["a", "b", "a"]
    assert [row["chosen"] for row in rows_for("trl", [pairs[0], pairs[0]])] == [" 0", " 0"]


@pytest.mark.parametrize(
    ("prompt", "answer", "expected"),
    [
        ("Why?", "So.", " So."),
        ("Why?\n", "So.", "So."),
        ("Why?", "\nSo.", "\nSo."),
        ("", "So.", "So."),
        ("Why?", "", ""),
    ],
)
def test_an_answer_never_runs_into_its_prompt(prompt: str, answer: str, expected: str) -> None:
    [row] = rows_for("trl", [Pair(prompt, answer, "No.")])
    assert row["chosen"] == expected
    [whole] = rows_for("trl-implicit", [Pair(prompt, answer, "No.")])
    assert whole["chosen"] == prompt + expected


def test_scores_are_taken_where_they_are_known() -> None:
    [row] = rows_for("ultrafeedback", [Pair("p", "c", "r", meta={"score_chosen": 4, "score_rejected": 1.5})])
    assert (row["score_chosen"], row["score_rejected"]) == (4.0, 1.5)


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "hh"])
def test_a_system_turn_stays(name: str) -> None:
    pair = Pair([system("Be terse."), user("How was it?")], "Good.", "Bad.")
    [row, *_] = rows_for(name, [pair])
    assert "Be terse." in json.dumps(row)
    if name == "llama-factory":
        assert row["conversations"][0] == {"from": "system", "value": "Be terse."}


@pytest.mark.parametrize(
    ("name", "pair", "said"),
    [
        (
            "hh",
            Pair([system("Be terse."), user("Hi")], "a", "b"),
            "only turns of user, assistant, found one of 'system'",
        ),
        ("hh", Pair("Hi", "Hello.\n\nHuman: Bye", "b"), r"expected no '\\n\\nHuman:' within a turn"),
        ("hh", Pair([user("Hi\n\nAssistant: Ho")], "a", "b"), r"expected no '\\n\\nAssistant:' within a turn"),
        ("hh", Pair("\n\nHuman: Hi", "a", "b"), "within a turn"),
        ("openai", Pair([{"role": "tool", "content": "4"}], "a", "b"), "found one of 'tool'"),
        ("axolotl", Pair([{"role": "user", "content": "Hi", "name": "Al"}], "a", "b"), "found one with name too"),
        ("llama-factory", Pair([user("Hi"), user("Ho")], "a", "b"), "from user to user, found user, user"),
        ("llama-factory", Pair([user("Hi"), assistant("Ho")], "a", "b"), "found user, assistant"),
        ("llama-factory", Pair([user("Hi"), system("x"), user("Ho")], "a", "b"), "found user, system, user"),
        ("llama-factory", Pair([system("x")], "a", "b"), "from user to user"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_in_one_line(name: str, pair: Pair, said: str) -> None:
    with pytest.raises(LspluginError, match=said) as error:
        list(rows_for(name, [CHAT, pair]))
    assert str(error.value).startswith(f"pair 2 as {name}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", AS_IT_IS)
def test_texts_and_conversations_do_not_mix(name: str) -> None:
    with pytest.raises(LspluginError, match=r"pair 2 .*\(text\).*as in the first pair.*\(messages\)"):
        list(rows_for(name, [Pair("a", "b", "c"), CHAT]))


@pytest.mark.parametrize("name", ["trl", "trl-implicit", "trl-conversational", "openrlhf"])
def test_a_margin_is_in_all_rows_also_where_nobody_was_asked(name: str) -> None:
    chat = name == "trl-conversational"
    pairs = [PLAIN, Pair("a", "b", "c"), *([CHAT] if chat else [])]
    assert [row["margin"] for row in rows_for(name, pairs)] == [2.0, 0.0, *([0.0] if chat else [])]
    assert [pair.get("margin") for pair in rows_for("pairs", [PLAIN, CHAT])] == [2, None]


def test_dataset_info_names_the_columns_that_are_there() -> None:
    info = dataset_info("mine", "mine.jsonl")["mine"]
    assert (info["file_name"], info["formatting"], info["ranking"]) == ("mine.jsonl", "sharegpt", True)
    [row] = rows_for("llama-factory", [CHAT])
    assert info["columns"] == {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    assert set(info["columns"].values()) == row.keys()


WORDS = st.text(alphabet=st.sampled_from("ab:\n ") | st.characters(), max_size=12) | st.sampled_from(
    ["\n\nHuman:", "\n\nAssistant:", "x\n\nAssistant: y", "\n\nHuman: hi\n\nAssistant:", "\n", "Assistant:"]
)
DIALOGUES = st.lists(st.builds(lambda role, text: {"role": role, "content": text}, st.sampled_from(["user", "assistant"]), WORDS),
                     min_size=1, max_size=4)  # fmt: skip


@given(prompt=WORDS | DIALOGUES, chosen=WORDS, rejected=WORDS)
def test_transcripts_give_the_pair_back_or_are_refused(prompt: str | list[Message], chosen: str, rejected: str) -> None:
    pair = Pair(prompt, chosen, rejected)
    try:
        [row] = rows_for("hh", [pair])
    except LspluginError:
        texts = [prompt] if isinstance(prompt, str) else [turn["content"] for turn in prompt]
        assert any(marker in text for text in [*texts, chosen, rejected] for marker in ("\n\nHuman:", "\n\nAssistant:"))
        return
    found, better, worse = split_dialogues(row["chosen"], row["rejected"])
    assert (better, worse) == (chosen.strip(), rejected.strip())
    [again] = rows_for("hh", [Pair(found, better, worse)])
    assert again == {"chosen": f"{found} {better}", "rejected": f"{found} {worse}"}
    names = {"user": "\n\nHuman:", "assistant": "\n\nAssistant:"}
    turns = [user(prompt)] if isinstance(prompt, str) else prompt
    said = "".join(f"{names[turn['role']]} {turn['content']}" for turn in turns) + "\n\nAssistant:"
    assert found in (said, prompt)  # a text may be the beginning of such a transcript already


THEIRS = pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")
"""TRL sets an option, and reads a property, that transformers is about to rename."""

TEMPLATE = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
CHATS = [CHAT, Pair([system("Be kind."), user("Was it good?")], "Good.", "Bad."), Pair([user("Cold?")], "No.", "Yes.")]
PLAINS = [PLAIN, OTHER, Pair("Was the coffee good?", "It was.", "Nobody cared.", margin=0)]


@pytest.fixture(scope="module")
def model(tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the tiny model with a padding token and a chat template: trainers load it again by its name."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = tmp_path_factory.mktemp("formats") / "model"
    tokenizer = AutoTokenizer.from_pretrained(tiny_causal)
    tokenizer.add_special_tokens({"pad_token": "<pad>"})
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    causal = AutoModelForCausalLM.from_pretrained(tiny_causal, pad_token_id=tokenizer.pad_token_id)
    causal.resize_token_embeddings(len(tokenizer))
    causal.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def tokenizer(model: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    return cast("PreTrainedTokenizerBase", AutoTokenizer.from_pretrained(model))


def load(name: str, pairs: list[Pair], folder: Path) -> Any:
    """Write the rows of pairs to a file and read it as trainers do."""
    datasets = pytest.importorskip("datasets")
    file = folder / f"{name}.jsonl"
    count = write_jsonl(file, rows_for(name, pairs))
    dataset = datasets.load_dataset("json", data_files=str(file), split="train", cache_dir=str(folder / "cache"))
    assert len(dataset) == count
    return dataset


def step(kind: str, dataset: Any, model: Path, tokenizer: PreTrainedTokenizerBase, folder: Path) -> Any:
    """Build TRL's trainer of that kind, take one step of it, give it back."""
    trl = pytest.importorskip("trl")
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    if kind == "Reward":
        loaded = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
    else:
        loaded = AutoModelForCausalLM.from_pretrained(model)
    config = getattr(trl, f"{kind}Config")(
        output_dir=str(folder),
        max_steps=1,
        per_device_train_batch_size=2,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to="none",
        save_strategy="no",
        logging_steps=1,
        disable_tqdm=True,
    )
    trainer = getattr(trl, f"{kind}Trainer")(
        model=loaded, args=config, train_dataset=dataset, processing_class=tokenizer
    )
    loss = trainer.train().training_loss
    assert math.isfinite(loss)
    assert loss > 0
    return trainer


@THEIRS
@pytest.mark.parametrize("pairs", [PLAINS, CHATS], ids=["plain", "chat"])
@pytest.mark.parametrize("name", ["trl", "trl-implicit", "trl-conversational"])
def test_reward_trainer(
    name: str, pairs: list[Pair], model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """It trains, and sees the very tokens of prompt, answer and end that our own reward model sees."""
    from rm_lightning.text import TextEncoder

    trainer = step("Reward", load(name, pairs, tmp_path), model, tokenizer, tmp_path)
    seen = trainer.train_dataset
    assert len(seen) == len(pairs)
    encoder = TextEncoder(tokenizer)
    for row, pair in zip(seen, pairs, strict=True):
        assert row["margin"] == (pair.margin or 0)
        prompt = [user(pair.prompt)] if isinstance(pair.prompt, str) and name == "trl-conversational" else pair.prompt
        assert row["chosen_ids"] == encoder(prompt, pair.chosen)
        assert row["rejected_ids"] == encoder(prompt, pair.rejected)


@THEIRS
@pytest.mark.parametrize("pairs", [PLAINS, CHATS], ids=["plain", "chat"])
@pytest.mark.parametrize(("kind", "name"), [("DPO", "trl"), ("DPO", "trl-conversational"), ("KTO", "trl-unpaired")])
def test_policy_trainers(
    kind: str, name: str, pairs: list[Pair], model: Path, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    trainer = step(kind, load(name, pairs, tmp_path), model, tokenizer, tmp_path)
    seen = trainer.train_dataset
    assert len(seen) == len(pairs) * (2 if kind == "KTO" else 1)
    answers = [text for pair in pairs for text in (pair.chosen, pair.rejected)]
    columns = ["completion_ids"] if kind == "KTO" else ["chosen_ids", "rejected_ids"]
    said = [str(tokenizer.decode(row[column], skip_special_tokens=True)) for row in seen for column in columns]
    assert [text.strip() for text in said] == answers
    if kind == "KTO":
        assert list(seen["label"]) == [True, False] * len(pairs)


@pytest.mark.parametrize("pairs", [PLAINS, CHATS], ids=["plain", "chat"])
def test_trl_finds_the_same_rows(pairs: list[Pair], tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> None:
    """TRL's own conversions of one format give our rows of another."""
    data_utils = pytest.importorskip("trl.data_utils")

    def rows(name: str) -> list[dict[str, Any]]:
        return list(rows_for(name, pairs))

    def same(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> bool:
        return {json.dumps(row, sort_keys=True) for row in first} == {json.dumps(row, sort_keys=True) for row in second}

    chats = pairs is CHATS
    for name in ("trl", "trl-implicit", "trl-unpaired", "trl-prompt-only"):
        assert all(data_utils.is_conversational(row) == chats for row in rows(name))
    assert all(data_utils.is_conversational(row) for row in rows("trl-conversational"))
    unpaired = data_utils.unpair_preference_dataset(load("trl", pairs, tmp_path))
    assert same(
        [{key: row[key] for key in ("prompt", "completion", "label")} for row in unpaired], rows("trl-unpaired")
    )
    whole = [data_utils.maybe_apply_chat_template(row, tokenizer) for row in rows("trl-conversational")]
    for row, conversation in zip(whole, rows("trl-conversational"), strict=True):
        assert row["prompt"].endswith("<assistant>")
        assert all(f"<{turn['role']}>{turn['content']}" in row["prompt"] for turn in conversation["prompt"])
        assert row["chosen"] == conversation["chosen"][0]["content"] + str(tokenizer.eos_token)
    for row, explicit in zip(rows("trl-implicit"), rows("trl"), strict=True):
        found = data_utils.extract_prompt(row)
        if chats:
            assert found == {key: explicit[key] for key in found}
        else:  # the prompt of texts is what both begin with, and that may reach into the answers
            assert found["prompt"].startswith(explicit["prompt"].rstrip())
            assert found["prompt"] + found["chosen"] == explicit["prompt"] + explicit["chosen"]


@pytest.mark.parametrize("name", [name for name in FORMATS if name != "pairs"])
def test_every_file_loads_as_one_table(name: str, tmp_path: Path) -> None:
    pairs = CHATS if name in AS_IT_IS else [CHAT, Pair("How?", "So.", "No.")]
    assert [dict(row) for row in load(name, pairs, tmp_path)] == list(rows_for(name, pairs))
