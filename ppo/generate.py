"""Answers of a language model to prompts, as a dataset to compare."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch

from lsplugin.preferences import prompt_text
from ppo.errors import PPOError
from ppo.sampling import sample

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from lsplugin.preferences import Prompt
    from ppo.policy import Policy
    from ppo.settings import Sampling

ROUNDS = 8
"""How often a prompt is asked again for an answer that is not empty and not there already."""


def generate(
    policy: Policy,
    prompts: Sequence[Prompt],
    *,
    answers: int,
    sampling: Sampling,
    seed: int,
    batch_size: int = 64,
    advance: Callable[[int], None] = lambda _: None,
) -> tuple[list[dict[str, Any]], Counter[str]]:
    """Sample distinct answers that are not empty, several to a prompt.

    Args:
        policy: what to sample from, on its device.
        prompts: what to answer.
        answers: how many to a prompt.
        sampling: how to draw.
        seed: the same seed gives the same dataset on the same machine.
        batch_size: sequences sampled together.
        advance: called with the number of prompts after every batch.

    Returns:
        Rows in the template's task shape, in the order of the prompts: `prompt`, `answer1` ... and `meta`. And how many prompts
        were dropped, by reason; prompts = rows + dropped.
    """
    if answers < 2:
        raise PPOError(f"--answers {answers}: a comparison needs 2 answers or more")
    device = policy.model.device
    dice = torch.Generator().manual_seed(seed)
    rows: list[dict[str, Any]] = []
    dropped: Counter[str] = Counter()
    size = max(1, batch_size // answers)
    for start in range(0, len(prompts), size):
        batch = prompts[start : start + size]
        found: list[dict[str, None]] = [{} for _ in batch]  # answers in order, each once
        for _ in range(ROUNDS):
            lacking = [number for number, texts in enumerate(found) for _ in range(answers - len(texts))]
            if not lacking:
                break
            input_ids, mask = policy.read([batch[number] for number in lacking], room=sampling.max_new_tokens)
            uniforms = torch.rand(len(lacking), sampling.max_new_tokens, generator=dice).to(device)
            drawn = sample(policy, input_ids.to(device), mask.to(device), sampling=sampling, uniforms=uniforms)
            for number, text in zip(lacking, policy.write(*(tensor.cpu() for tensor in drawn)), strict=True):
                if text:
                    found[number].setdefault(text)
        for prompt, texts in zip(batch, found, strict=True):
            if len(texts) < answers:
                dropped[
                    f"the model gave fewer than {answers} distinct answers that are not empty in {ROUNDS} rounds"
                ] += 1
                continue
            rows.append(_row(prompt, list(texts), policy.name))
        advance(len(batch))
    return rows, dropped


def _row(prompt: Prompt, texts: Sequence[str], name: str) -> dict[str, Any]:
    fields = {f"answer{number}": text for number, text in enumerate(texts, start=1)}
    meta: dict[str, Any] = {"models": dict.fromkeys(fields, name)}
    if not isinstance(prompt, str):
        meta["messages"] = prompt
    return {"prompt": prompt_text(prompt), **fields, "meta": meta}
