"""Checks of what a run is given, before any work is done."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from jinja2 import TemplateError
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from lsplugin.preferences import prompt_text
from ppo.errors import PPOError
from rm_lightning.backbone import load_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lsplugin.preferences import Prompt
    from ppo.policy import Policy


def check_causal(name: str) -> None:
    """Raise a PPOError for a model that is no causal language model.

    transformers would make one of nearly anything: of an encoder one that sees tokens to come, of a classifier one with the head
    of its embeddings.
    """
    config = load_config(name)
    known = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.get(config.model_type, ())
    causal = {known} if isinstance(known, str) else set(known)
    found = config.architectures or []
    if not causal or (found and not causal & set(found)):
        raise PPOError(
            f"{name}: expected a causal language model, such as gpt2 or a folder of `python -m ppo run`, found "
            f"{', '.join(found) or config.model_type}"
        )


def why_unusable(policy: Policy, prompt: Prompt) -> str | None:
    """Say why a prompt cannot be answered and shown; None where it can."""
    text = prompt_text(prompt)
    if not (text.strip() if isinstance(prompt, str) else any(message["content"].strip() for message in prompt)):
        return "the prompt is empty"
    if any("\ud800" <= letter <= "\udfff" for letter in text):
        return "the prompt holds half a character (a lone surrogate), which no tokenizer reads"
    try:
        policy.encoder.prompt(prompt)
    except TemplateError as error:
        return f"the policy's chat template refuses the prompt ({error})"
    return None


def usable_prompts(policy: Policy, prompts: Sequence[Prompt]) -> tuple[list[Prompt], Counter[str]]:
    """Give the prompts that can be answered, and how many of the others there are, by reason.

    Raises:
        PPOError: none is left.
    """
    reasons = [why_unusable(policy, prompt) for prompt in prompts]
    kept = [prompt for prompt, reason in zip(prompts, reasons, strict=True) if reason is None]
    dropped = Counter(reason for reason in reasons if reason is not None)
    if not kept:
        said = "".join(f"; {count} left out: {reason}" for reason, count in dropped.items())
        raise PPOError(f"no prompts to answer: expected one or more{said}")
    return kept, dropped


def cut_prompts(policy: Policy, prompts: Sequence[Prompt], room: int) -> int:
    """Count the prompts that are cut to leave `room` tokens for the answer.

    Raises:
        PPOError: there is no room for any prompt.
    """
    policy.read(prompts[:1], room=room)
    longest = policy.encoder.max_length - room
    return sum(len(policy.encoder.prompt(prompt)) > longest for prompt in prompts)
