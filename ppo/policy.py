"""Policies: load any Hugging Face causal model, read prompts into it, write answers out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from ppo.errors import PPOError
from ppo.inputs import check_causal
from rm_lightning.backbone import fuse_activation, load_config, named_model, window
from rm_lightning.text import JOIN_KEY, TextEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from lsplugin.preferences import Prompt


class Policy(NamedTuple):
    """A causal language model with what is needed to talk to it.

    Attributes:
        name: where it came from.
        model: the network.
        tokenizer: its tokenizer.
        encoder: makes prompts and answers of the same tokens as the reward model does.
        eos_token_ids: tokens that end an answer.
        pad_token_id: fills up rectangles; masked everywhere.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    encoder: TextEncoder
    eos_token_ids: tuple[int, ...]
    pad_token_id: int

    def read(self, prompts: Sequence[Prompt], *, room: int) -> tuple[Tensor, Tensor]:
        """Tokenise prompts, padded on the left: (input_ids, attention_mask), both (B, P), mask True = real token.

        Args:
            prompts: B prompts.
            room: tokens to leave free for the answer; longer prompts are cut from the left.
        """
        longest = self.encoder.max_length - room
        if longest < 1:
            raise PPOError(
                f"--max-new-tokens {room} leaves no room for a prompt: the model reads {self.encoder.max_length} tokens at most"
            )
        rows = [self.encoder.cut(self.encoder.prompt(prompt), longest) for prompt in prompts]
        width = max(map(len, rows))
        input_ids = torch.full((len(rows), width), self.pad_token_id)
        mask = torch.zeros(len(rows), width, dtype=torch.bool)
        for number, row in enumerate(rows):
            input_ids[number, width - len(row) :] = torch.tensor(row)
            mask[number, width - len(row) :] = True
        return input_ids, mask

    def write(self, responses: Tensor, response_mask: Tensor) -> list[str]:
        """Decode responses, (B, T) and (B, T), into answers: text without special tokens and without blanks around it."""
        texts = (row[mask].tolist() for row, mask in zip(responses, response_mask, strict=True))
        return [str(self.tokenizer.decode(ids, skip_special_tokens=True)).strip() for ids in texts]


def load_policy(name: str) -> Policy:
    """Load a causal language model from a folder or by its hub name, with dropout off.

    Raises:
        PPOError: the name is no causal language model, or nothing says how its answers end.
    """
    check_causal(name)
    config = load_config(name)
    fuse_activation(config)
    with named_model(name):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name)
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(name, config=config, dtype=torch.float32)
    model.eval()  # type: ignore[no-untyped-call]
    settings = model.generation_config
    ends = settings.eos_token_id if settings is not None else None
    ends = ends if ends is not None else tokenizer.eos_token_id
    if ends is None:
        raise PPOError(
            f"{name}: neither generation_config.json nor the tokenizer names an EOS token; answers would never end"
        )
    eos_token_ids = tuple(ends) if isinstance(ends, list) else (int(ends),)
    encoder = TextEncoder(tokenizer, join=getattr(config, JOIN_KEY, None), max_length=window(config) or 1 << 20)
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else eos_token_ids[0]
    return Policy(name, model, tokenizer, encoder, eos_token_ids, int(pad))


def position_ids(mask: Tensor) -> Tensor:
    """Positions that start at 0 with the first real token: (B, S) -> (B, S)."""
    return (mask.long().cumsum(1) - 1).clamp_min(0)
