"""What samples a run's answers: the decode loop, the same with everything of one size, or vLLM."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import DynamicLayer

from ppo.errors import PPOError
from ppo.sampling import draw, first_logits, next_logits, sample

if TYPE_CHECKING:
    from collections.abc import Callable

    from lightning.fabric import Fabric
    from torch import Tensor
    from transformers import PreTrainedModel

    from ppo.policy import Policy
    from ppo.sampling import Sampler
    from ppo.settings import Rollouts, Sampling

PROMPT_STEP = 64
"""Prompts are padded to a multiple of this, so that few sizes are compiled."""

REDUCED = partial(torch.compile, mode="reduce-overhead", dynamic=False)
"""One kernel launch a token on a GPU (CUDA graphs); fused kernels on a CPU, which take a C++ compiler and a minute."""


def make_sampler(rollouts: Rollouts, policy: Policy, fabric: Fabric) -> Sampler:
    """Make what samples a run's answers.

    Raises:
        PPOError: vLLM cannot run this policy on this machine.
    """
    if rollouts.rollout == "static":
        return StaticSampler()
    if rollouts.rollout == "vllm":
        from ppo.vllm_sampler import VLLMSampler

        return VLLMSampler(policy, fabric, memory=rollouts.vllm_memory)
    return sample


class StaticSampler:
    """The decode loop with batch, cache and mask of one size, so that a step can be compiled and played as a CUDA graph.

    Small models on a GPU wait for their kernels to be launched; a graph launches them all at once. In return an answer that
    has ended stays in the batch until the last one has. The answers are those of `sample`, but for rounding.

    Args:
        compiled: compiles a step.
    """

    def __init__(self, compiled: Callable[[Any], Any] = REDUCED) -> None:
        self.step = compiled(next_logits)
        self.caches: dict[tuple[int, int], StaticCache] = {}  # by rows and tokens; a graph knows them by address

    @torch.no_grad()
    def __call__(
        self, policy: Policy, input_ids: Tensor, mask: Tensor, *, sampling: Sampling, uniforms: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Continue each prompt, as `sample` does."""
        (batch, width), device = input_ids.shape, input_ids.device
        steps = sampling.max_new_tokens
        wide = -(-width // PROMPT_STEP) * PROMPT_STEP
        ends = torch.tensor(policy.eos_token_ids, device=device)
        responses = torch.full((batch, steps), policy.pad_token_id, device=device)
        response_mask = torch.zeros_like(responses, dtype=torch.bool)
        going = torch.ones(batch, dtype=torch.bool, device=device)
        read = DynamicCache(config=policy.model.config)
        logits = first_logits(policy.model, input_ids, mask, read)  # (B, V)
        cache = self._fill(policy.model, read, batch, wide + steps, spare=wide - width)
        seen = pad(mask, (wide - width, steps))  # (B, S): what the cache holds that may be looked at
        for step in range(steps):
            drawn = draw(logits, sampling, uniforms[:, step]).where(going, policy.pad_token_id)  # (B,)
            responses[:, step] = drawn
            response_mask[:, step] = going
            going = going & ~torch.isin(drawn, ends)
            if step + 1 == steps or not going.any():
                break
            seen[:, wide + step] = True
            torch.compiler.cudagraph_mark_step_begin()  # type: ignore[no-untyped-call] # the logits before may be written over
            logits = self._next(policy.model, drawn.unsqueeze(1), seen, cache)
        longest = int(response_mask.sum(1).max())
        return responses[:, :longest], response_mask[:, :longest]

    def _next(self, model: PreTrainedModel, tokens: Tensor, seen: Tensor, cache: StaticCache) -> Tensor:
        """Take a compiled step; a PPOError where it cannot be compiled here."""
        try:
            logits: Tensor = self.step(model, tokens, seen, cache)
        except RuntimeError as error:
            from torch._dynamo.exc import BackendCompilerFailed

            if not isinstance(error, BackendCompilerFailed):
                raise
            reason = str(error).strip().splitlines()[0][:200]
            raise PPOError(
                f"--rollout static: a step cannot be compiled here ({reason}); a CPU takes a C++ compiler; use --rollout own"
            ) from error
        return logits

    def _fill(self, model: PreTrainedModel, read: DynamicCache, rows: int, tokens: int, *, spare: int) -> StaticCache:
        """Put what was read of the prompts, `spare` places from the left, into a cache of one size."""
        layers = [layer for layer in read.layers if type(layer) is DynamicLayer]
        if len(layers) < len(read.layers):
            raise PPOError("--rollout static: expected a model whose layers all see the whole text; use --rollout own")
        key = rows, tokens
        if key not in self.caches:
            self.caches[key] = StaticCache(config=model.config, max_cache_len=tokens)
        cache = self.caches[key]
        cache.reset()  # type: ignore[no-untyped-call]
        for number, layer in enumerate(layers):
            if layer.keys is not None and layer.values is not None:
                keys, values = (pad(part, (0, 0, spare, 0)) for part in (layer.keys, layer.values))
                cache.update(keys, values, number)
        return cache
