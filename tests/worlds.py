"""Models small enough to be counted through, made here, never loaded from anywhere."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from ppo.policy import Policy, load_policy, response_logits

if TYPE_CHECKING:
    from pathlib import Path

WORDS = ["a", "b", "c", "d", "e"]


def word_policy(folder: Path, *, seed: int = 0, hidden: int = 32) -> Policy:
    """A random two-layer GPT-2 over five words, `<eos>` and `<pad>`: every short answer can be enumerated."""
    vocabulary = {word: number for number, word in enumerate([*WORDS, "<eos>", "<pad>", "<unk>"])}
    raw = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<pad>", unk_token="<unk>")
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=len(vocabulary),
        n_positions=16,
        n_embd=hidden,
        n_layer=2,
        n_head=2,
        eos_token_id=5,
        pad_token_id=6,
        bos_token_id=None,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():  # spread the probabilities: a fresh model is nearly uniform
        model.transformer.wte.weight.mul_(3)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return load_policy(str(folder))


def all_responses(length: int) -> list[list[int]]:
    """Every token sequence that ends with <eos> (5) or is `length` tokens long without one; <pad> and <unk> included."""
    found = []
    for size in range(1, length + 1):
        for start in product([0, 1, 2, 3, 4, 6, 7], repeat=size - 1):
            found += [[*start, last] for last in range(8) if last == 5 or size == length]
    return found


@torch.no_grad()
def response_distribution(policy: Policy, prompt: str, length: int, temperature: float = 1.0) -> torch.Tensor:
    """Probability of every response of `all_responses`, by the chain rule; sums to 1."""
    prompt_ids, prompt_mask = policy.read([prompt], room=length)
    logprobs = []
    for response in all_responses(length):
        input_ids = torch.cat([prompt_ids, torch.tensor([response])], dim=1)
        mask = torch.cat([prompt_mask, torch.ones(1, len(response), dtype=torch.bool)], dim=1)
        logits, _ = response_logits(policy.model, input_ids, mask, len(response))
        steps = (logits / temperature).log_softmax(-1)[0]
        logprobs.append(steps[torch.arange(len(response)), torch.tensor(response)].sum())
    return torch.stack(logprobs).exp()
