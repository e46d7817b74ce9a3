"""Checks of what a run is given, before any work is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

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


def cut_prompts(policy: Policy, prompts: Sequence[Prompt], room: int) -> int:
    """Count the prompts that are cut to leave `room` tokens for the answer.

    Raises:
        PPOError: there is no room for any prompt.
    """
    policy.read(prompts[:1], room=room)
    longest = policy.encoder.max_length - room
    return sum(len(policy.encoder.prompt(prompt)) > longest for prompt in prompts)
