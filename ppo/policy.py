"""Policies: load any Hugging Face causal model, read prompts into it, get log-probabilities and values out of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from ppo.core import entropy, token_logprobs
from ppo.errors import PPOError
from rm_lightning.backbone import load_config, named_model, window
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
    config = load_config(name)
    with named_model(name):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(name)
        model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32)
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


class Outputs(NamedTuple):
    """What a policy says about responses; 0 where no token was sampled.

    | field | shape | |
    |---|---|---|
    | logprobs | (B, T) | log-probability of each response token |
    | values | (B, T) | expected return before each response token |
    | entropy | (B, T) | of the distribution each token was drawn from, nats; None where it was not asked for |
    """

    logprobs: Tensor
    values: Tensor
    entropy: Tensor | None


class ActorCritic(nn.Module):
    """A policy and its value head on one trunk.

    The value head reads the same last hidden state as the language-model head, so both cost one pass.

    Args:
        model: the causal language model to tune.
        value_init_std: standard deviation of the head's first weights. At 0 the first values are 0 and the first advantages the
            rewards to come; Huang et al. 2024 (arXiv 2403.17031) take 1 / sqrt(hidden size + 1).
    """

    def __init__(self, model: PreTrainedModel, *, value_init_std: float = 0.0) -> None:
        super().__init__()
        self.model = model
        self.value_head = nn.Linear(model.config.get_text_config().hidden_size, 1)
        nn.init.normal_(self.value_head.weight, std=value_init_std)
        nn.init.zeros_(self.value_head.bias)

    def forward(
        self, input_ids: Tensor, mask: Tensor, length: int, temperature: float = 1.0, *, with_entropy: bool = True
    ) -> Outputs:
        """Score the last `length` tokens of each row; logits are made for those positions alone.

        Args:
            input_ids: prompts padded on the left, then responses padded on the right, (B, P + T).
            mask: True = real token, (B, P + T).
            length: T.
            temperature: at which the responses were sampled; the log-probabilities are those of that distribution (Huang et al.
                2024, arXiv 2403.17031).
            with_entropy: the entropy, too, which is one more pass over the vocabulary.
        """
        logits, hidden = response_logits(self.model, input_ids, mask, length)
        sampled = mask[:, -length:]
        with torch.autocast(hidden.device.type, enabled=False):
            values = nn.functional.linear(hidden.float(), self.value_head.weight.float(), self.value_head.bias.float())
        rows = logits[sampled] / temperature  # (N, V) for the N real tokens
        logprobs = _spread(token_logprobs(rows, input_ids[:, -length:][sampled]), sampled)
        entropies = _spread(entropy(rows), sampled) if with_entropy else None
        return Outputs(logprobs, values.squeeze(-1) * sampled, entropies)


def _spread(values: Tensor, sampled: Tensor) -> Tensor:
    """Put the values of real tokens back into their rectangle: (N,), (B, T) -> (B, T), 0 elsewhere."""
    return torch.zeros_like(sampled, dtype=values.dtype).masked_scatter(sampled, values)


def response_logits(model: PreTrainedModel, input_ids: Tensor, mask: Tensor, length: int) -> tuple[Tensor, Tensor]:
    """Logits and hidden states that predict the last `length` tokens: (B, T, V) and (B, T, H)."""
    out = model(
        input_ids=input_ids,
        attention_mask=mask.long(),
        position_ids=position_ids(mask),
        logits_to_keep=length + 1,
        output_hidden_states=True,
        use_cache=False,
    )
    # The state at position i predicts token i + 1.
    return out.logits[:, :-1], out.hidden_states[-1][:, -length - 1 : -1]


@torch.no_grad()
def reference_logprobs(
    model: PreTrainedModel, input_ids: Tensor, mask: Tensor, length: int, temperature: float
) -> Tensor:
    """Log-probabilities of the last `length` tokens under the frozen reference: (B, T); 0 where no token was sampled."""
    logits, _ = response_logits(model, input_ids, mask, length)
    sampled = mask[:, -length:]
    return _spread(token_logprobs(logits[sampled] / temperature, input_ids[:, -length:][sampled]), sampled)
