"""Log-probabilities of drawn tokens straight from hidden states, so many tokens at a time as fit into some memory.

With a vocabulary of V and hidden states of width H, the logits of N tokens take N V numbers, several times over once softmax and
its gradient are kept: more than everything else of a small model, in memory and in time. Here they live for a few tokens at a
time. One thing is kept of them, their own gradient; where that would be too much, they are made again for it, which costs one
matrix product and one softmax more.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

PIECE = 2**24
"""Logits in a piece, 64 MiB of float32: products of 2,048 tokens by 8,192 run a third faster than of 256."""

LEAST = 256
"""Tokens in a piece at least; as many as states are wide where that is more, so that summing the weight's gradient is cheap."""

SMALL = -80.0
"""Log-probabilities below this are not read off a float32 probability, which has few digits there, and none below -103."""

KEPT = 2**25
"""N V at most for which the logits' gradients are kept: 128 MiB of float32."""


def linear_logprobs(hidden: Tensor, weight: Tensor, tokens: Tensor, temperature: float = 1.0) -> Tensor:
    """Log-probability of each token under softmax(weight hidden / temperature): (N, H), (V, H), (N,) -> (N,), float32.

        d log p(y) / d z = onehot(y) - softmax(z)        for logits z

    Under autocast the products are made in its precision; sums and exponentials are float32 always. What it saves is that of
    Wijmans et al. 2024, "Cut your losses in large-vocabulary language models" (arXiv 2411.09009).
    """
    found: Tensor = _LinearLogprobs.apply(hidden, weight, tokens, temperature)  # type: ignore[no-untyped-call]
    return found


class _LinearLogprobs(Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, tokens: Tensor, temperature: float) -> Tensor:  # noqa: ANN401
        device = hidden.device.type
        mixed = torch.is_autocast_enabled(device)
        states = hidden.to(torch.get_autocast_dtype(device)) if mixed else hidden
        matrix = weight.to(states.dtype)
        logprobs = torch.empty(len(hidden), device=hidden.device)
        keep = any(ctx.needs_input_grad) and len(hidden) * len(weight) <= KEPT
        pushes = []
        for piece in _pieces(hidden, matrix):
            chances, logprobs[piece] = _chances(_logits(states[piece], matrix, temperature), tokens[piece])
            if keep:
                pushes.append(_pushed(chances, tokens[piece]).to(states.dtype))
        ctx.save_for_backward(states, matrix, tokens, *pushes)
        ctx.temperature, ctx.dtypes = temperature, (hidden.dtype, weight.dtype)
        return logprobs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        states, matrix, tokens, *pushes = ctx.saved_tensors
        scale = (grads[0] / -ctx.temperature)[:, None]  # (N, 1)
        scaled = (states * scale).to(states.dtype)
        d_states = torch.empty_like(states)
        d_matrix = torch.zeros(matrix.shape, device=matrix.device)
        for number, piece in enumerate(_pieces(states, matrix)):
            if pushes:
                push = pushes[number]
            else:
                chances = _logits(states[piece], matrix, ctx.temperature).softmax(-1)
                push = _pushed(chances, tokens[piece]).to(states.dtype)
            d_states[piece] = (push @ matrix) * scale[piece]
            if matrix.dtype == torch.float32:
                d_matrix.addmm_(push.T, scaled[piece])
            else:
                d_matrix += push.T @ scaled[piece]
        return d_states.to(ctx.dtypes[0]), d_matrix.to(ctx.dtypes[1]), None, None


def _pieces(hidden: Tensor, matrix: Tensor) -> list[slice]:
    size = max(LEAST, hidden.shape[1], PIECE // len(matrix))
    return [slice(start, start + size) for start in range(0, len(hidden), size)]


def _logits(states: Tensor, matrix: Tensor, temperature: float) -> Tensor:
    logits = (states @ matrix.T).float()
    return logits if temperature == 1 else logits.div_(temperature)


def _chances(logits: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """softmax(z), (N, V), and log p(y), (N,): the logarithm of one chance a row takes less than those of all."""
    chances = logits.softmax(-1)
    logprobs = chances.gather(1, tokens[:, None]).squeeze(1).log()
    low = logprobs < SMALL
    if low.any():
        logprobs[low] = logits[low].log_softmax(-1).gather(1, tokens[low, None]).squeeze(1)
    return chances, logprobs


def _pushed(chances: Tensor, tokens: Tensor) -> Tensor:
    """softmax(z) - onehot(y), in place of softmax(z): what -log p(y) pushes logits by."""
    return chances.scatter_add_(1, tokens[:, None], torch.full_like(chances[:, :1], -1))
