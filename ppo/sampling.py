"""Sampling: a small decode loop with a KV cache that lets finished sequences leave the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache

from ppo.policy import position_ids

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel

    from ppo.policy import Policy
    from ppo.settings import Sampling

LEAVE_AT = 0.75
"""Finished sequences leave the batch when fewer than this share are still going: copying the cache costs something, too."""


@torch.no_grad()
def sample(
    policy: Policy,
    input_ids: Tensor,
    mask: Tensor,
    *,
    sampling: Sampling,
    generator: torch.Generator | None = None,
) -> tuple[Tensor, Tensor]:
    """Continue each prompt until an EOS or `max_new_tokens`.

    Args:
        policy: what to sample from; its model is used as it is, in its own mode and on its own device.
        input_ids: prompts padded on the left, (B, P).
        mask: True = real token, (B, P).
        sampling: how to draw.
        generator: on the model's device; the same seed gives the same answers.

    Returns:
        responses, (B, T) with T the longest drawn and pad tokens after an answer's EOS; response_mask, (B, T), True = real
        token, EOS included.
    """
    batch, device = len(input_ids), input_ids.device
    ends = torch.tensor(policy.eos_token_ids, device=device)
    responses = torch.full((batch, sampling.max_new_tokens), policy.pad_token_id, device=device)
    response_mask = torch.zeros_like(responses, dtype=torch.bool)
    rows = torch.arange(batch, device=device)  # which answer each row of the shrinking batch writes
    going = torch.ones(batch, dtype=torch.bool, device=device)
    cache = DynamicCache(config=policy.model.config)
    tokens = input_ids
    for step in range(sampling.max_new_tokens):
        logits = next_logits(policy.model, tokens, mask, cache)  # (B', V)
        drawn = draw(logits, sampling, generator)  # (B',)
        responses[rows[going], step] = drawn[going]
        response_mask[rows[going], step] = True
        going = going & ~torch.isin(drawn, ends)
        if not going.any():
            break
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        if going.float().mean() < LEAVE_AT:
            kept = going.nonzero().squeeze(1)
            cache.batch_select_indices(kept)
            rows, mask, drawn, going = rows[kept], mask[kept], drawn[kept], going[kept]
        tokens = drawn.unsqueeze(1)
    longest = int(response_mask.sum(1).max())
    return responses[:, :longest], response_mask[:, :longest]


def next_logits(model: PreTrainedModel, tokens: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
    """Logits of the next token, (B, V), float32; the cache takes up the new tokens.

    Args:
        model: the causal language model.
        tokens: the prompts at first, (B, P), then the newest token alone, (B, 1).
        mask: over everything so far, (B, S).
        cache: keys and values of everything before `tokens`.
    """
    out = model(
        input_ids=tokens,
        attention_mask=mask.long(),
        position_ids=position_ids(mask)[:, -tokens.shape[1] :],
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    )
    logits: Tensor = out.logits[:, -1].float()
    return logits


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator | None) -> Tensor:
    """Draw one token a row: (B, V) -> (B,)."""
    logits = logits / sampling.temperature
    if sampling.top_k:
        worst = logits.topk(min(sampling.top_k, logits.shape[-1])).values[:, -1:]
        logits = logits.masked_fill(logits < worst, -torch.inf)
    if sampling.top_p < 1:
        ordered, order = logits.sort(descending=True)
        before = ordered.softmax(-1).cumsum(-1) - ordered.softmax(-1)  # probability of everything likelier
        logits = logits.masked_fill(
            torch.zeros_like(order).bool().scatter(1, order, before >= sampling.top_p), -torch.inf
        )
    return torch.multinomial(logits.softmax(-1), 1, generator=generator).squeeze(1)
