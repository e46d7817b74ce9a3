"""Pairs as the rows that trainers read, one format for each; the fields are those that its documentation names.

What was said, every turn of the prompt and both answers, is in the rows, or the pair is refused in one line. The margin goes
where a trainer reads one; the weight, the probability and where a pair comes from stay in `pairs` alone.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from lsplugin.dialogue import HUMAN, TURN
from lsplugin.errors import LspluginError
from lsplugin.preferences import Message, Pair, Prompt, prompt_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

Row = dict[str, Any]

_SPEAKERS = {"user": HUMAN, "assistant": TURN}
_SENDERS = {"system": "system", "user": "human", "assistant": "gpt"}
_TYPES = {str: "text", list: "messages", float: "number", bool: "yes or no", dict: "object"}


@dataclass(frozen=True)
class Format:
    """A shape of preference data.

    Attributes:
        name: what people choose it by.
        title: what it is for, in a line.
        source: the page that names its fields.
        rows: makes the one or two rows of a pair; raises LspluginError for what the format cannot hold.
    """

    name: str
    title: str
    source: str
    rows: Callable[[Pair], list[Row]]


def rows_for(name: str, pairs: Iterable[Pair]) -> Iterator[Row]:
    """Stream the rows of pairs in the format called `name`.

    In `trl-prompt-only`, a prompt that equals the one before it is not repeated. In every format but `pairs` all rows have the
    same columns of the same types, because that is how `datasets` reads a file.

    Raises:
        LspluginError: there is no such format (at once), or a pair does not fit into it (with its number, from 1).
    """
    if name not in FORMATS:
        raise LspluginError(f"expected a format, one of {', '.join(FORMATS)}; found {name!r}")
    return _stream(FORMATS[name], pairs)


def dataset_info(name: str, file: str) -> dict[str, Any]:
    """Give the entry of LLaMA-Factory's dataset_info.json that tells it how to read `file`, a `llama-factory` file."""
    columns = {"messages": "conversations", "chosen": "chosen", "rejected": "rejected"}
    return {name: {"file_name": file, "formatting": "sharegpt", "ranking": True, "columns": columns}}


def _stream(form: Format, pairs: Iterable[Pair]) -> Iterator[Row]:
    first: list[str] = []
    last: Row = {}
    for number, pair in enumerate(pairs, start=1):
        try:
            rows = form.rows(pair)
        except LspluginError as error:
            raise LspluginError(f"pair {number} as {form.name}: {error}") from None
        for row in rows:
            columns = [f"{name} ({_TYPES.get(type(value))})" for name, value in row.items()]
            first = first or columns
            if columns != first and form.name != "pairs":
                raise LspluginError(
                    f"pair {number} as {form.name}: expected {', '.join(first)}, as in the first pair, "
                    f"found {', '.join(columns)}; a trainer reads one kind of row a file"
                )
            if form.name != "trl-prompt-only" or row != last:
                yield row
            last = row


def _messages(prompt: Prompt) -> list[Message]:
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)


def _answer(text: str) -> Message:
    return {"role": "assistant", "content": text}


def _turns(prompt: Prompt, roles: Collection[str]) -> list[Message]:
    """Give the prompt's messages if their roles are among `roles` and they hold nothing but a role and a content."""
    messages = _messages(prompt)
    for message in messages:
        if message["role"] not in roles:
            raise LspluginError(f"expected only turns of {', '.join(roles)}, found one of {message['role']!r}")
        if more := sorted(message.keys() - {"role", "content"}):
            raise LspluginError(f"expected turns with a role and a content, found one with {', '.join(more)} too")
    return messages


def _parts(pair: Pair) -> tuple[Any, Any, Any]:
    """Give prompt, chosen and rejected so that prompt + answer is the whole, of texts as of messages."""
    if isinstance(pair.prompt, str):
        return pair.prompt, _behind(pair.prompt, pair.chosen), _behind(pair.prompt, pair.rejected)
    return pair.prompt, [_answer(pair.chosen)], [_answer(pair.rejected)]


def _behind(prompt: str, answer: str) -> str:
    """Put a blank before an answer where its first word would otherwise run into the prompt's last."""
    apart = not prompt or not answer or prompt[-1].isspace() or answer[0].isspace()
    return answer if apart else " " + answer


def _margin(pair: Pair) -> Row:
    """Give the margin, 0 where nobody was asked: the same to a loss, and a file has the column in all rows or in none."""
    return {"margin": float(pair.margin or 0.0)}


def _explicit(pair: Pair) -> list[Row]:
    prompt, chosen, rejected = _parts(pair)
    return [{"prompt": prompt, "chosen": chosen, "rejected": rejected, **_margin(pair)}]


def _implicit(pair: Pair) -> list[Row]:
    prompt, chosen, rejected = _parts(pair)
    return [{"chosen": prompt + chosen, "rejected": prompt + rejected, **_margin(pair)}]


def _conversational(pair: Pair) -> list[Row]:
    return _explicit(replace(pair, prompt=_messages(pair.prompt)))


def _unpaired(pair: Pair) -> list[Row]:
    prompt, chosen, rejected = _parts(pair)
    answers = ((chosen, True), (rejected, False))
    return [{"prompt": prompt, "completion": answer, "label": label} for answer, label in answers]


def _hh(pair: Pair) -> list[Row]:
    prompt = _transcript(pair.prompt)
    return [{"chosen": f"{prompt} {_unmarked(pair.chosen)}", "rejected": f"{prompt} {_unmarked(pair.rejected)}"}]


def _transcript(prompt: Prompt) -> str:
    if isinstance(prompt, str) and prompt.startswith(tuple(_SPEAKERS.values())) and prompt.endswith(TURN):
        return prompt  # it came from such a file
    turns = _turns(prompt, _SPEAKERS)
    return "".join(f"{_SPEAKERS[turn['role']]} {_unmarked(turn['content'])}" for turn in turns) + TURN


def _unmarked(text: str) -> str:
    if found := [marker for marker in _SPEAKERS.values() if marker in text]:
        raise LspluginError(f"expected no {found[0]!r} within a turn (it would begin another), found {text[:40]!r}")
    return text


def _openai(pair: Pair) -> list[Row]:
    messages = _turns(pair.prompt, ("system", "developer", "user", "assistant"))
    chosen, rejected = _answer(pair.chosen), _answer(pair.rejected)
    return [{"input": {"messages": messages}, "preferred_output": [chosen], "non_preferred_output": [rejected]}]


def _rewardbench(pair: Pair) -> list[Row]:
    messages = _messages(pair.prompt)
    chosen, rejected = [*messages, _answer(pair.chosen)], [*messages, _answer(pair.rejected)]
    return [{"prompt": prompt_text(pair.prompt), "chosen": chosen, "rejected": rejected}]


def _ultrafeedback(pair: Pair) -> list[Row]:
    [row] = _rewardbench(pair)
    number = hashlib.sha256(row["prompt"].encode("utf-8", "surrogatepass")).hexdigest()
    names = [name for name in ("score_chosen", "score_rejected") if isinstance(pair.meta.get(name), int | float)]
    return [row | {"prompt_id": number, "messages": row["chosen"]} | {name: float(pair.meta[name]) for name in names}]


def _llama_factory(pair: Pair) -> list[Row]:
    messages = _turns(pair.prompt, _SENDERS)
    roles = [message["role"] for message in messages]
    roles = roles[roles[:1] == ["system"] :]
    if len(roles) % 2 == 0 or roles != (["user", "assistant"] * len(roles))[: len(roles)]:  # their loader skips it
        raise LspluginError(f"expected user and assistant in turn, from user to user, found {', '.join(roles)}")
    sent = [{"from": _SENDERS[message["role"]], "value": message["content"]} for message in messages]
    chosen, rejected = ({"from": "gpt", "value": answer} for answer in (pair.chosen, pair.rejected))
    return [{"conversations": sent, "chosen": chosen, "rejected": rejected}]


def _axolotl(pair: Pair) -> list[Row]:
    messages = _turns(pair.prompt, ("system", "user", "assistant"))
    return [{"messages": messages, "chosen": _answer(pair.chosen), "rejected": _answer(pair.rejected)}]


_TRL = "https://huggingface.co/docs/trl/dataset_formats"
_GITHUB, _DATASETS = "https://github.com", "https://huggingface.co/datasets"

FORMATS: dict[str, Format] = {
    form.name: form
    for form in (
        Format("pairs", "this project's own, with all that is known", _TRL, lambda pair: [pair.to_dict()]),
        Format("trl", "TRL, preference with an explicit prompt", f"{_TRL}#preference", _explicit),
        Format("trl-implicit", "TRL, preference with the prompt in both texts", f"{_TRL}#preference", _implicit),
        Format("trl-conversational", "TRL, preference in messages", f"{_TRL}#preference", _conversational),
        Format("trl-unpaired", "TRL, one row an answer, as KTO reads", f"{_TRL}#unpaired-preference", _unpaired),
        Format("trl-prompt-only", "TRL, prompts alone", f"{_TRL}#prompt-only", lambda pair: [{"prompt": pair.prompt}]),
        Format("hh", "Anthropic's HH: two whole transcripts", f"{_DATASETS}/Anthropic/hh-rlhf", _hh),
        Format("openai", "OpenAI's preference fine-tuning",
               "https://developers.openai.com/api/docs/guides/direct-preference-optimization", _openai),
        Format("ultrafeedback", "UltraFeedback binarized", f"{_DATASETS}/HuggingFaceH4/ultrafeedback_binarized", _ultrafeedback),
        Format("openrlhf", "OpenRLHF; conversations need --apply_chat_template",
               f"{_GITHUB}/OpenRLHF/OpenRLHF/blob/main/openrlhf/datasets/reward_dataset.py", _explicit),
        Format("llama-factory", "LLaMA-Factory, sharegpt with ranking",
               f"{_GITHUB}/hiyouga/LLaMA-Factory/blob/main/data/README.md", _llama_factory),
        Format("axolotl", "Axolotl, DPO of type chat_template.default",
               f"{_GITHUB}/axolotl-ai-cloud/axolotl/blob/main/docs/rlhf.qmd", _axolotl),
        Format("rewardbench", "RewardBench, a set of one's own (--load_json)",
               f"{_GITHUB}/allenai/reward-bench/blob/main/rewardbench/utils.py", _rewardbench),
    )
}  # fmt: skip
