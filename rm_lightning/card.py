"""README.md of an exported reward model: what it is, how plain transformers loads it, what was measured, what it is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

from rm_lightning.report import floor_warning, leak_warning

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rm_lightning.report import Record

_CARD = """\
---
{front}
---

# {title}

A reward model: it reads a prompt and an answer and gives one number, the higher the better people like the answer.

It was trained from {base}
on comparisons of two answers to the same prompt: sigmoid(score of one less score of the other) is its guess of the probability
that people prefer the first (Bradley and Terry 1952).

## How to use it

```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = {name}
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
end = tokenizer.sep_token_id if tokenizer.eos_token_id is None else tokenizer.eos_token_id


def score(prompt, answer):
    if isinstance(prompt, str):
        before = tokenizer(prompt).input_ids
        if before and before[-1] == tokenizer.eos_token_id:  # the prompt goes on
            before = before[:-1]
        answer = {join} + answer
    else:  # a conversation, [{{"role": ..., "content": ...}}, ...]
        before = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
    ids = before + tokenizer(answer, add_special_tokens=False).input_ids + [end]
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits.mean().item()


print(score("What is the capital of France?", "Paris.") - score("What is the capital of France?", "I will not say."))
```

Prompt and answer are made into tokens apart: first the prompt, then {join} and the answer, then the end of text. A
conversation goes through the chat template instead, and nothing stands before the answer. Where both are too long for the model,
the prompt was cut from the left, never the answer.

## What was measured

{measured}

Data: {used} of {pairs} pairs were used ({parts}){dropped}. Fingerprint of the data: {fingerprint}.

## What the score does not mean

- Only differences between answers to the same prompt mean something: a score has no zero and no unit, and answers to
  different prompts are not comparable.
- It says what the people who labelled prefer on prompts like theirs, not what is true, safe or good.
- It is wrong as often as the accuracy above says. A policy that is tuned against it finds those mistakes: watch the divergence
  from the start model, and read samples (Gao et al. 2022, arXiv 2210.10760).
- Where it is right mostly when the better answer is the longer one, it has learned length: compare it with the floor above.

Made with {versions}.
"""


def model_card(
    record: Record, *, name: str, base: str, join: str, fingerprint: str, library_versions: Mapping[str, str]
) -> str:
    """Write the model card.

    Args:
        record: what is known of the model.
        name: the folder or hub name under which it is loaded.
        base: the backbone: a hub name, or a local folder, of which the card says no more than its last part.
        join: what stands between a plain prompt and its answer.
        fingerprint: of the training data.
        library_versions: version by library.
    """
    data = record.data
    on_hub = _is_hub_name(base)
    front: dict[str, Any] = {"base_model": base} if on_hub else {}
    front |= {"library_name": "transformers", "pipeline_tag": "text-classification", "tags": ["reward-model"]}
    dropped = [f"{count} dropped: {_line(reason)}" for reason, count in data["dropped"].items()]
    return _CARD.format(
        front="\n".join(
            f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in front.items()
        ),  # JSON is YAML
        title=_line(record.title),
        base=f"[{base}](https://huggingface.co/{base})" if on_hub else f"a local model ({_line(Path(base).name)})",
        name=json.dumps(name, ensure_ascii=False),
        join=json.dumps(join, ensure_ascii=False),
        measured=_measured(record),
        used=sum(data["used"].values()),
        pairs=data["in"],
        parts=", ".join(f"{_line(part)} {count}" for part, count in data["used"].items()),
        dropped="; " + ", ".join(dropped) if dropped else "",
        fingerprint=_line(fingerprint),
        versions=", ".join(f"{library} {version}" for library, version in library_versions.items()),
    )


def _measured(record: Record) -> str:
    """Lay the figures out as a Markdown table, with the warnings before it."""
    metrics, ceiling = record.metrics, record.ceiling
    warnings = [leak_warning(metrics, ceiling), floor_warning(metrics)]
    rows = [
        ("accuracy", metrics["accuracy"], metrics["accuracy_interval"]),
        ("floor: always the longer answer", metrics["length_floor"], metrics["length_floor_interval"]),
    ]
    if ceiling is not None:
        rows.append(("ceiling: as far as people agree", ceiling["value"], [ceiling["at_least"], ceiling["at_most"]]))
    rows += [
        ("log-loss in nats; a coin has 0.693", metrics["log_loss"], None),
        ("calibration error", metrics["calibration_error"], None),
        ("the same of a calibrated model, by chance", metrics["calibration_error_by_chance"], None),
    ]
    bounds = " (of the ceiling: its bounds, however opinions are spread)" if ceiling is not None else ""
    return "\n".join(
        [
            *(f"**{warning}**\n" for warning in warnings if warning),
            f"On {metrics['comparisons']} comparisons of {metrics['prompts']} prompts, with 95% intervals{bounds}:\n",
            "| | | interval |",
            "|---|---:|---:|",
            *(f"| {what} | {_number(value)} | {_interval(interval)} |" for what, value, interval in rows),
        ]
    )


def _is_hub_name(base: str) -> bool:
    """Say whether a model lies on the hub, so that a card may link to it; a local folder may look alike."""
    try:
        validate_repo_id(base)
    except HFValidationError:
        return False
    return not Path(base).exists()


def _line(text: str) -> str:
    """Keep a text to one line, and without what Markdown would make of it."""
    return "".join(f"&#{ord(mark)};" if mark in "<>&*_[]`|\\#" else mark for mark in " ".join(text.split()))


def _number(value: float | None) -> str:
    return "not known" if value is None else f"{value:.3f}"


def _interval(bounds: list[float | None] | None) -> str:
    if bounds is None:
        return ""
    low, high = bounds
    return "not known" if low is None or high is None else f"{low:.3f} to {high:.3f}"
