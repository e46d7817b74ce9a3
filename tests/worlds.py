"""Models small enough to be counted through, made here, never loaded from anywhere."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, NamedTuple

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from ppo.actor import reference_logprobs, response_logits
from ppo.policy import Policy, load_policy
from rm_lightning.text import TextEncoder

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import Tensor

    from lsplugin.preferences import Prompt

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


LETTERS = ["a", "b", "c", "d", "e", "f", "g", "h"]
PROMPTS = LETTERS[:4]


class World(NamedTuple):
    """A policy whose every answer can be counted, and a reward with a known optimum.

    | field | shape | |
    |---|---|---|
    | policy | | a random two-layer GPT-2 of width 64 that says 8 tokens |
    | responses | (N, T) | every answer, padded on the right |
    | response_mask | (N, T) | True = real token, EOS included |
    | rewards | (4, N) | mean 0 and variance 1 under the start, for each prompt |
    | ref_logprobs | (4, N) | log-probability of each answer under the start |
    | number | | which answer a text is |
    """

    policy: Policy
    responses: Tensor
    response_mask: Tensor
    rewards: Tensor
    ref_logprobs: Tensor
    number: dict[str, int]

    @property
    def length(self) -> int:
        """Most tokens of an answer."""
        return self.responses.shape[1]

    def reward(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> Tensor:
        """Look the answers up: (B,)."""
        rows = torch.tensor([PROMPTS.index(str(prompt)) for prompt in prompts])
        return self.rewards[rows, torch.tensor([self.number[answer] for answer in answers])].float()

    def logprobs(self) -> Tensor:
        """Log-probability of every answer to every prompt under the policy as it is now, by the chain rule: (4, N)."""
        return answer_logprobs(self.policy, self.responses, self.response_mask)

    def optimum(self, kl_coef: float) -> Tensor:
        """Log-probabilities of the policy that maximises the objective, pi* ~ ref exp(r / kl_coef): (4, N)."""
        return (self.ref_logprobs + self.rewards / kl_coef).log_softmax(1)

    def objective(self, logprobs: Tensor, kl_coef: float) -> Tensor:
        """E[r] - kl_coef KL(policy || start), exactly, the mean over prompts; a scalar."""
        return (logprobs.exp() * (self.rewards - kl_coef * (logprobs - self.ref_logprobs))).sum(1).mean()

    def share(self, kl_coef: float) -> float:
        """How far the policy is on the way from start to optimum, in the objective: 0 at the start, 1 at the optimum."""
        start, now, best = (
            float(self.objective(logprobs, kl_coef))
            for logprobs in (self.ref_logprobs, self.logprobs(), self.optimum(kl_coef))
        )
        return (now - start) / (best - start)

    def distance(self, kl_coef: float) -> float:
        """KL(policy || optimum) in nats, the mean over prompts."""
        logprobs = self.logprobs()
        return float((logprobs.exp() * (logprobs - self.optimum(kl_coef))).sum(1).mean())


def make_world(name: str, *, seed: int = 0) -> World:
    """Make world A, B or C; every number of it is drawn from the seed.

    A: answers of 3 of 8 tokens; reward = scores by position + scores of neighbours, drawn for each prompt.
    B: answers of 4; a reward drawn independently for each of the 4,096 answers to each prompt.
    C: as A, with answers of up to 4, where the eighth token is EOS.
    """
    length = {"A": 3, "B": 4, "C": 4}[name]
    policy = letter_policy(seed, ends=name == "C")
    rows = [list(row) for row in product(range(8), repeat=length)]
    if name == "C":  # one row for each answer: what follows its EOS is padding
        rows = [row for row in rows if 7 not in row or not any(row[row.index(7) + 1 :])]
    responses = torch.tensor(rows)
    ended = (responses == 7) & (name == "C")
    response_mask = ended.cumsum(1) - ended.long() == 0
    generator = torch.Generator().manual_seed(seed + 1)
    if name == "B":
        rewards = torch.randn(len(PROMPTS), len(rows), generator=generator)
    else:
        by_position = torch.randn(len(PROMPTS), length, 8, generator=generator)
        by_neighbours = torch.randn(len(PROMPTS), 8, 8, generator=generator)
        rewards = (by_position[:, torch.arange(length), responses] * response_mask).sum(-1)
        rewards += (by_neighbours[:, responses[:, :-1], responses[:, 1:]] * response_mask[:, 1:]).sum(-1)
    ref_logprobs = answer_logprobs(policy, responses, response_mask)
    chances = ref_logprobs.exp()  # (4, N)
    rewards = rewards - (chances * rewards).sum(1, keepdim=True)
    rewards = rewards / (chances * rewards**2).sum(1, keepdim=True).sqrt()
    number = {text: place for place, text in enumerate(policy.write(responses, response_mask))}
    return World(policy, responses, response_mask, rewards, ref_logprobs, number)


def letter_policy(seed: int = 0, *, ends: bool = False) -> Policy:
    """A random two-layer GPT-2 of width 64 that says eight letters; with `ends` the eighth is EOS, else it says none."""
    names = [*LETTERS[:7], "<eos>", "<pad>"] if ends else [*LETTERS, "<eos>", "<pad>"]
    raw = Tokenizer(models.WordLevel({name: number for number, name in enumerate(names)}, unk_token="<pad>"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()  # type: ignore[assignment]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="<eos>", pad_token="<pad>")
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=8,
        n_positions=8,
        n_embd=64,
        n_layer=2,
        n_head=2,
        initializer_range=64
        ** -0.5,  # at GPT-2's own 0.02, layers this narrow are nearly linear, and answers hard to tell apart
        activation_function="gelu_pytorch_tanh",  # GPT-2's own, as one kernel
        tie_word_embeddings=False,  # tied, an untrained model repeats the token it reads
        eos_token_id=None,
        bos_token_id=None,
    )
    model = GPT2LMHeadModel(config).eval()
    with torch.no_grad():  # spread the probabilities: logits of deviation 0.5
        model.lm_head.weight.normal_(std=0.5 / 64**0.5)
    encoder = TextEncoder(tokenizer, join=None, max_length=8)
    # Masked everywhere, so any token that the model can read will do as padding.
    return Policy("letters", model, tokenizer, encoder, (names.index("<eos>"),), 0)


@torch.no_grad()
def answer_logprobs(policy: Policy, responses: Tensor, response_mask: Tensor) -> Tensor:
    """Log-probability of each of N answers to each of the prompts: (N, T), (N, T) -> (4, N)."""
    found = []
    for prompt in PROMPTS:
        prompt_ids, prompt_mask = policy.read([prompt], room=responses.shape[1])
        input_ids = torch.cat([prompt_ids.expand(len(responses), -1), responses], dim=1)
        mask = torch.cat([prompt_mask.expand(len(responses), -1), response_mask], dim=1)
        steps = reference_logprobs(policy.model, input_ids, mask, responses.shape[1], 1.0)
        found.append((steps * response_mask).double().sum(1))
    return torch.stack(found)
