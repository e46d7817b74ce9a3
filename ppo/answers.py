"""Answers that are seeded one by one: each follows from seed, prompt and number, whatever it is sampled along with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from lsplugin.preferences import prompt_text
from ppo.actor import reference_logprobs
from ppo.sampling import sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import Tensor

    from lsplugin.preferences import Prompt
    from ppo.policy import Policy
    from ppo.settings import Sampling

Place = tuple[int, int]
"""Which answer is meant: the number of its prompt, and its own number among that prompt's answers."""


class Answers(NamedTuple):
    """N answers, on the CPU.

    | field | shape | |
    |---|---|---|
    | texts | N texts | |
    | length | (N,) | tokens, EOS included |
    | ended | (N,) | True = with EOS, not cut off |
    | kl | (N,) | log policy - log base of the answer, nats; 0 without a base |

    The probabilities are those at the sampling temperature, before top-k and top-p cut anything off.
    """

    texts: list[str]
    length: Tensor
    ended: Tensor
    kl: Tensor


def uniforms(seed: int, places: Sequence[Place], length: int) -> Tensor:
    """Random numbers in [0, 1) for the tokens of each answer, from generators of their own: (B, length), float32."""
    rows = [np.random.default_rng([seed % 2**64, *place]).random(length, dtype=np.float32) for place in places]
    return torch.from_numpy(np.stack(rows))


def answer(
    policy: Policy,
    prompts: Sequence[Prompt],
    places: Sequence[Place],
    *,
    sampling: Sampling,
    seed: int,
    base: Policy | None = None,
) -> Answers:
    """Sample one answer for each of B prompts, together.

    Args:
        policy: what to sample from, on its device.
        prompts: B prompts.
        places: where each answer's random numbers come from, B.
        sampling: how to draw.
        seed: of all answers.
        base: what else to ask for each answer's log-probability; it has the same tokens.
    """
    device = policy.model.device
    input_ids, mask = (tensor.to(device) for tensor in policy.read(prompts, room=sampling.max_new_tokens))
    rolled = uniforms(seed, places, sampling.max_new_tokens).to(device)
    responses, response_mask = sample(policy, input_ids, mask, sampling=sampling, uniforms=rolled)
    kl = torch.zeros(len(prompts))
    if base is not None:
        whole = torch.cat([input_ids, responses], 1), torch.cat([mask, response_mask], 1)
        new, old = (
            reference_logprobs(model, *whole, responses.shape[1], sampling.temperature)
            for model in (policy.model, base.model)
        )
        kl = ((new - old) * response_mask).sum(1).cpu()
    responses, response_mask = responses.cpu(), response_mask.cpu()
    ended = (torch.isin(responses, torch.tensor(policy.eos_token_ids)) & response_mask).any(1)
    return Answers(policy.write(responses, response_mask), response_mask.sum(1).float(), ended, kl)


def answer_all(
    policy: Policy,
    prompts: Sequence[Prompt],
    each: int,
    *,
    sampling: Sampling,
    seed: int,
    base: Policy | None = None,
    batch_size: int,
    advance: Callable[[int], object],
) -> Answers:
    """Sample `each` answers to each of N prompts: (N each,), those of a prompt behind one another; see `answer`.

    Args:
        batch_size: answers sampled together.
        advance: called with the number of answers after every batch.
    """
    places = [(number, own) for number in longest_first(prompts) for own in range(each)]
    parts = []
    for start in range(0, len(places), batch_size):
        batch = places[start : start + batch_size]
        asked = [prompts[number] for number, _ in batch]
        parts.append(answer(policy, asked, batch, sampling=sampling, seed=seed, base=base))
        advance(len(batch))
    texts = [text for part in parts for text in part.texts]
    order = sorted(range(len(places)), key=places.__getitem__)  # back to the prompts' own
    length, ended, kl = (torch.cat([part[field] for part in parts])[order] for field in (1, 2, 3))  # type: ignore[misc]
    return Answers([texts[place] for place in order], length, ended, kl)


def longest_first(prompts: Sequence[Prompt]) -> list[int]:
    """Order prompts so that a batch holds about equally long ones, and the one that needs most memory comes first."""
    return sorted(range(len(prompts)), key=lambda number: -len(prompt_text(prompts[number])))
