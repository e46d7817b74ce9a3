"""Sampling by vLLM (Kwon et al. 2023, arXiv 2309.06180): paged attention and continuous batches, for large models on a GPU."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch

from ppo.actor import reference_logprobs
from ppo.errors import PPOError
from rm_lightning.adapters import merged_weights

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from torch import Tensor

    from ppo.policy import Policy
    from ppo.settings import Sampling

SEEDS = 2**24
"""How many a float32 in [0, 1) can tell apart."""

CHECKED = 16
"""Answers of every batch whose log-probabilities are compared with the policy's own."""

TOLERANCE = 0.1
"""How far apart they may be, nats a token on average; bfloat16 makes some hundredths."""


class VLLMSampler:
    """An engine in this process and on its device, which takes up the policy's weights before every batch.

    An answer follows from its prompt and its own random numbers here, too, though it is another than `ppo.sampling.sample`
    gives for them, and vLLM's rounding may depend on what else the batch holds. PPO learns from log-probabilities that the
    policy itself gives, not from vLLM's, so that the first ratios are 1; a few of each batch are compared.

    Args:
        policy: the engine loads its folder; adapters are added to the weights that it is given.
        fabric: precision, device and processes; each process has an engine of its own.
        memory: share of the GPU that the engine takes.

    Raises:
        PPOError: vLLM cannot run this policy on this machine.
    """

    def __init__(self, policy: Policy, fabric: Fabric, *, memory: float) -> None:
        os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1"}
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
        launcher = None
        if fabric.world_size > 1:
            launcher = "external_launcher"
            os.environ |= {"RANK": str(fabric.global_rank), "LOCAL_RANK": str(fabric.local_rank)}
        from vllm import LLM
        from vllm.exceptions import VLLMError

        low = str(fabric._precision.precision).startswith("bf16")  # noqa: SLF001 - it is nowhere else
        try:
            self.engine = LLM(
                policy.name, skip_tokenizer_init=True, dtype="bfloat16" if low else "float32", max_model_len=-1,
                gpu_memory_utilization=memory, generation_config="vllm", seed=0, disable_log_stats=True,
                distributed_executor_backend=launcher,
            )  # fmt: skip
        except (AssertionError, ImportError, OSError, RuntimeError, ValueError, VLLMError) as error:
            raise PPOError(f"--rollout vllm: vLLM cannot run {policy.name} here ({_reason(error)})") from error

    @torch.no_grad()
    def __call__(
        self, policy: Policy, input_ids: Tensor, mask: Tensor, *, sampling: Sampling, uniforms: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Continue each prompt, as `ppo.sampling.sample` does; the first of an answer's random numbers is its seed."""
        from vllm import SamplingParams
        from vllm.exceptions import VLLMError

        prompts: list[Any] = [
            {"prompt_token_ids": row[seen].tolist()} for row, seen in zip(input_ids.cpu(), mask.cpu(), strict=True)
        ]
        settings = [
            SamplingParams(
                max_tokens=sampling.max_new_tokens, temperature=sampling.temperature, top_k=sampling.top_k,
                top_p=sampling.top_p, stop_token_ids=list(policy.eos_token_ids), detokenize=False, seed=seed, logprobs=0,
            )
            for seed in (uniforms[:, 0].double() * SEEDS).long().tolist()
        ]  # fmt: skip
        with torch.autocast(input_ids.device.type, enabled=False):
            self.engine.collective_rpc("reload_weights", kwargs={"weights_iterator": merged_weights(policy.model)})
            self.engine.reset_prefix_cache()  # of the weights before
            try:
                found = [out.outputs[0] for out in self.engine.generate(prompts, settings, use_tqdm=False)]
            except (RuntimeError, ValueError, VLLMError) as error:  # a prompt that does not fit, or the memory
                raise PPOError(f"--rollout vllm: vLLM cannot answer a batch ({_reason(error)})") from error
        shape = len(found), max(len(answer.token_ids) for answer in found)
        responses, logprobs = torch.full(shape, policy.pad_token_id), torch.zeros(shape)
        response_mask = torch.zeros(shape, dtype=torch.bool)
        for row, answer in enumerate(found):
            tokens = answer.token_ids
            responses[row, : len(tokens)] = torch.tensor(tokens)
            response_mask[row, : len(tokens)] = True
            said = [at[token].logprob for at, token in zip(answer.logprobs or (), tokens, strict=True)]
            logprobs[row, : len(tokens)] = torch.tensor(said)
        responses, response_mask = responses.to(input_ids.device), response_mask.to(input_ids.device)
        whole = torch.cat([input_ids, responses], 1), torch.cat([mask, response_mask], 1)
        _compare(logprobs[:CHECKED], policy, *(part[:CHECKED] for part in whole))
        return responses, response_mask


def _compare(logprobs: Tensor, policy: Policy, input_ids: Tensor, mask: Tensor) -> None:
    """Raise a PPOError where vLLM is not the policy: it computes something else, or did not take up all weights.

    Args:
        logprobs: vLLM's of the last T tokens, (B, T); 0 where there is none.
        policy: what it should be.
        input_ids: (B, P + T).
        mask: (B, P + T).
    """
    length = logprobs.shape[1]
    ours = reference_logprobs(policy.model, input_ids, mask, length, 1.0).cpu()
    apart = float((logprobs - ours).abs().sum() / mask[:, -length:].sum())
    if not apart < TOLERANCE:
        raise PPOError(
            f"--rollout vllm: vLLM's log-probabilities are {apart:.2g} nats a token from those of {policy.name}, expected less "
            f"than {TOLERANCE}: it does not run this model alike; sample with --rollout own"
        )


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
