"""Log-probabilities of drawn tokens straight from hidden states, without ever holding all logits.

With a vocabulary of V and hidden states of width H, the logits of N tokens take N V numbers, several times over once softmax and
its gradient are kept: more than everything else of a small model, in memory and in time. Here they live for a few tokens at a
time and are made again for the gradient, which costs one matrix product more than keeping them and no pass over memory.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

LEAST = 256
"""Tokens in a piece at least; as many as states are wide where that is more, so that summing the weight's gradient is cheap."""


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
        for piece in _pieces(hidden):
            logits = _logits(states[piece], matrix, temperature)
            logprobs[piece] = _chosen(logits, tokens[piece]) - logits.logsumexp(-1)
        ctx.save_for_backward(states, matrix, tokens, logprobs)
        ctx.temperature, ctx.dtypes = temperature, (hidden.dtype, weight.dtype)
        return logprobs

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # noqa: ANN401
        states, matrix, tokens, logprobs = ctx.saved_tensors
        scale = (grads[0] / ctx.temperature)[:, None]  # (N, 1)
        d_states = torch.empty_like(states)
        d_matrix = torch.zeros(matrix.shape, device=matrix.device)
        for piece in _pieces(states):
            logits = _logits(states[piece], matrix, ctx.temperature)
            normaliser = (_chosen(logits, tokens[piece]) - logprobs[piece])[:, None]
            d_logits = logits.sub_(normaliser).exp_().mul_(-scale[piece])
            d_logits = d_logits.scatter_add_(1, tokens[piece][:, None], scale[piece]).to(states.dtype)
            d_states[piece] = d_logits @ matrix
            if matrix.dtype == torch.float32:
                d_matrix.addmm_(d_logits.T, states[piece])
            else:
                d_matrix += d_logits.T @ states[piece]
        return d_states.to(ctx.dtypes[0]), d_matrix.to(ctx.dtypes[1]), None, None


def _pieces(hidden: Tensor) -> list[slice]:
    size = max(LEAST, hidden.shape[1])
    return [slice(start, start + size) for start in range(0, len(hidden), size)]


def _logits(states: Tensor, matrix: Tensor, temperature: float) -> Tensor:
    logits = (states @ matrix.T).float()
    return logits if temperature == 1 else logits.div_(temperature)


def _chosen(logits: Tensor, tokens: Tensor) -> Tensor:
    return logits.gather(1, tokens[:, None]).squeeze(1)
