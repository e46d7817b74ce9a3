"""Sampling: a small decode loop with a KV cache that lets finished sequences leave the batch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from transformers import DynamicCache

from ppo.policy import position_ids

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import Cache, PreTrainedModel

    from ppo.policy import Policy
    from ppo.settings import Sampling

LEAVE_AT = 0.75
"""Finished sequences leave the batch when fewer than this share are still going: copying the cache costs something, too."""


class Sampler(Protocol):
    """What continues prompts, as `sample` does: the same arguments, the same results."""

    def __call__(
        self, policy: Policy, input_ids: Tensor, mask: Tensor, *, sampling: Sampling, uniforms: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Continue each prompt: (responses, response_mask), both (B, T)."""
        ...


@torch.no_grad()
def sample(
    policy: Policy,
    input_ids: Tensor,
    mask: Tensor,
    *,
    sampling: Sampling,
    uniforms: Tensor,
) -> tuple[Tensor, Tensor]:
    """Continue each prompt until an EOS or `max_new_tokens`; equal prompts are read once.

    A row's answer depends on its prompt and its own random numbers, not on what else the batch holds.

    Args:
        policy: what to sample from; its model is used as it is, in its own mode and on its own device.
        input_ids: prompts padded on the left, (B, P).
        mask: True = real token, (B, P).
        sampling: how to draw.
        uniforms: one number in [0, 1) for every token that may be drawn, (B, max_new_tokens); see `draw`.

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
    logits = first_logits(policy.model, input_ids, mask, cache)  # (B, V)
    for step in range(sampling.max_new_tokens):
        drawn = draw(logits, sampling, uniforms[rows, step])  # (B',)
        responses[rows[going], step] = drawn[going]
        response_mask[rows[going], step] = True
        going = going & ~torch.isin(drawn, ends)
        if step + 1 == sampling.max_new_tokens or not going.any():
            break
        mask = torch.cat([mask, torch.ones_like(mask[:, :1])], dim=1)
        if going.float().mean() < LEAVE_AT:
            kept = going.nonzero().squeeze(1)
            cache.batch_select_indices(kept)
            rows, mask, drawn, going = rows[kept], mask[kept], drawn[kept], going[kept]
        logits = next_logits(policy.model, drawn.unsqueeze(1), mask, cache)  # (B', V)
    longest = int(response_mask.sum(1).max())
    return responses[:, :longest], response_mask[:, :longest]


def first_logits(model: PreTrainedModel, input_ids: Tensor, mask: Tensor, cache: DynamicCache) -> Tensor:
    """Logits of the first token, (B, V), float32; each distinct row is run once, and the cache then holds all B.

    Args:
        model: the causal language model.
        input_ids: (B, P).
        mask: (B, P).
        cache: an empty one.
    """
    marked = torch.where(mask, input_ids, -1)
    distinct, place = torch.unique(marked, dim=0, return_inverse=True)  # (U, P), (B,)
    if len(distinct) == len(marked):
        return next_logits(model, input_ids, mask, cache)
    seen = distinct >= 0
    logits = next_logits(model, distinct.where(seen, input_ids.min()), seen, cache)
    cache.batch_select_indices(place)
    return logits[place]


def next_logits(model: PreTrainedModel, tokens: Tensor, mask: Tensor, cache: Cache) -> Tensor:
    """Logits of the next token, (B, V), float32; the cache takes up the new tokens.

    Args:
        model: the causal language model.
        tokens: the prompts at first, (B, P), then the newest token alone, (B, 1).
        mask: over everything so far, (B, S), or over a cache of S tokens that is not full; the newest are marked, too.
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


def draw(logits: Tensor, sampling: Sampling, uniforms: Tensor) -> Tensor:
    """Draw one token a row by inverting its distribution function: (B, V), (B,) -> (B,).

    The token drawn with u is the first one at which the cumulated probability passes u (Devroye 1986, "Non-uniform random variate
    generation", section III.2.1), so that the same u gives the same token in any batch and on any number of processes.
    """
    if sampling.temperature != 1:
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
    cumulated = logits.softmax(-1).cumsum_(-1)  # in place: fresh memory of this size costs as much as the sum
    total = cumulated[:, -1:]  # 1, but for rounding
    point = torch.minimum(uniforms.unsqueeze(1) * total, total.nextafter(torch.zeros_like(total)))
    return torch.searchsorted(cumulated, point, right=True).squeeze(1)
