"""Answers drawn from a model folder: what the simulated annotators are given to compare."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from demo_world.base import JOIN, quiet_transformers

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

MAX_NEW_TOKENS = 72
"""Longer than nearly every review of the corpus, and short enough for the base model's 128 positions."""


def sample_answers(
    folder: Path,
    prompts: Sequence[str],
    *,
    seed: int,
    batch: int = 128,
    max_new_tokens: int = MAX_NEW_TOKENS,
    progress: Callable[[int, int], None] | None = None,
) -> list[str]:
    """Draw one answer a prompt at temperature 1 from the plain distribution (no top-k, no top-p).

    Args:
        folder: a causal language model with its tokenizer.
        prompts: the prompts, one answer each, so name a prompt twice for two answers.
        seed: the same seed, prompts and batch give the same answers on one machine.
        batch: prompts a step.
        max_new_tokens: answers are cut here when they do not end before.
        progress: called with (answers done, answers in all).
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
        model: Any = AutoModelForCausalLM.from_pretrained(folder)
        model.eval()
    answers: list[str] = []
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(seed)
        for at in range(0, len(prompts), batch):
            inputs = tokenizer(list(prompts[at : at + batch]), return_tensors="pt", padding=True)
            ids = model.generate(
                **inputs,
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=max_new_tokens,
                pad_token_id=tokenizer.pad_token_id,
            )
            texts = tokenizer.batch_decode(ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
            answers += [text.removeprefix(JOIN) for text in texts]
            if progress is not None:
                progress(len(answers), len(prompts))
    return answers
