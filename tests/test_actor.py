"""What is read of drawn answers, in packed rows and for a few tokens at a time, is what plain transformers say."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    GPT2Config,
    GPTJConfig,
    LlamaConfig,
    MambaConfig,
    PreTrainedConfig,
    Qwen3Config,
)

from ppo import logprobs
from ppo.actor import (
    HEAD,
    ActorCritic,
    head_weight,
    load_critic,
    pack_answers,
    read_answers,
    reference_logprobs,
    response_logits,
)
from ppo.core import entropy, token_logprobs
from ppo.errors import PPOError
from ppo.logprobs import KEPT, PIECE, linear_logprobs
from rm_lightning.backbone import load_scorer, load_tokenizer
from tests.worlds import word_policy

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedModel

VOCAB = 50
SMALL: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
}
SHAPES: dict[str, tuple[PreTrainedConfig, bool]] = {
    "gpt2": (GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, bos_token_id=0, eos_token_id=0), True),
    "llama": (LlamaConfig(**SMALL), True),
    "qwen3": (Qwen3Config(**SMALL), True),
    "gemma2, which bends its logits": (Gemma2Config(**SMALL, bos_token_id=0, eos_token_id=0, pad_token_id=0), False),
    "gpt-j, whose head has a bias": (
        GPTJConfig(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, rotary_dim=8, bos_token_id=0, eos_token_id=0),
        False,
    ),
    "mamba, which has no rows to pack": (
        MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, state_size=4, expand=1, pad_token_id=0),
        False,
    ),
}
"""Each with whether it is read in packed rows."""


def make(config: PreTrainedConfig) -> PreTrainedModel:
    torch.manual_seed(0)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():  # a fresh model says nearly the same of every token
            if "emb" in name or "wte" in name or "lm_head.weight" in name:
                weight.mul_(5)
    return model


def rectangle(prompts: list[list[int]], answers: list[list[int]]) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Pad as a rollout is padded: (input_ids, mask, T)."""
    width, length = max(map(len, prompts)), max(map(len, answers))
    input_ids = torch.zeros(len(prompts), width + length, dtype=torch.long)
    mask = torch.zeros_like(input_ids, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        text = torch.tensor(prompt + answer)
        input_ids[row, width - len(prompt) : width + len(answer)] = text
        mask[row, width - len(prompt) : width + len(answer)] = True
    return input_ids, mask, length


def draw_rows(seed: int = 0) -> tuple[list[list[int]], list[list[int]]]:
    """Seven prompts of 1 to 6 tokens, two of them several times and not in a row, with answers of 1 to 5."""
    dice = torch.Generator().manual_seed(seed)

    def tokens(least: int, most: int) -> list[int]:
        size = int(torch.randint(least, most + 1, (), generator=dice))
        return torch.randint(1, VOCAB, (size,), generator=dice).tolist()  # type: ignore[no-any-return]

    distinct = [tokens(1, 6) for _ in range(5)]
    prompts = [distinct[number] for number in (0, 1, 2, 0, 3, 4, 1, 0, 2)]
    return prompts, [tokens(1, 5) for _ in prompts]


def one_by_one(
    model: PreTrainedModel, prompts: list[list[int]], answers: list[list[int]], temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability and entropy of every token, row by row, each text read alone: (N,), (N,)."""
    logprobs, entropies = [], []
    for prompt, answer in zip(prompts, answers, strict=True):
        logits = model(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1] / temperature
        logprobs.append(token_logprobs(logits, torch.tensor(answer)))
        entropies.append(entropy(logits))
    return torch.cat(logprobs), torch.cat(entropies)


@pytest.mark.parametrize("name", SHAPES)
def test_logprobs_and_gradients_are_those_of_one_text_at_a_time(name: str) -> None:
    config, packs = SHAPES[name]
    model = make(config)
    prompts, answers = draw_rows()
    input_ids, mask, length = rectangle(prompts, answers)
    if name.startswith("mamba"):  # it has no attention to leave padding out of
        prompts, answers = [[1, 2, 3]] * 3, [[4, 5], [6, 7], [8, 9]]
        input_ids, mask, length = rectangle(prompts, answers)
    assert (head_weight(model) is not None) == packs
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    dice = torch.Generator().manual_seed(1)
    push = torch.randn(sum(map(len, answers)), generator=dice)
    expected, expected_entropy = one_by_one(model, prompts, answers, 0.7)
    wanted = torch.autograd.grad((expected * push).sum(), weights, allow_unused=True)
    read = read_answers(model, input_ids, mask, length, 0.7)
    found = torch.autograd.grad((read.logprobs * push).sum(), weights, allow_unused=True)
    assert torch.allclose(read.logprobs, expected, atol=1e-5)
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert (one - other).abs().max() <= 1e-5 * max(1e-3, float(other.abs().max()))
    assert read.entropy is None
    both = read_answers(model, input_ids, mask, length, 0.7, with_entropy=True)
    assert both.entropy is not None
    assert torch.allclose(both.entropy, expected_entropy, atol=1e-5)
    assert torch.allclose(both.logprobs, expected, atol=1e-5)


def test_values_stand_where_the_tokens_do() -> None:
    """Packed or in the rectangle, the same value at the same place, and 0 where nothing was sampled."""
    model = make(SHAPES["llama"][0])
    actor = ActorCritic(model, value_init_std=1.0)
    input_ids, mask, length = rectangle(*draw_rows())
    packed = actor(input_ids, mask, length, 0.7)
    setattr(model, HEAD, False)
    plain = actor(input_ids, mask, length, 0.7)
    assert packed.values.shape == mask[:, -length:].shape
    assert torch.allclose(packed.values, plain.values, atol=1e-5)
    assert torch.allclose(packed.logprobs, plain.logprobs, atol=1e-5)
    assert (packed.values[~mask[:, -length:]] == 0).all()
    assert packed.values[mask[:, -length:]].std() > 0.1


def test_an_empty_prompt_is_refused_and_not_read_from_another_text() -> None:
    input_ids, mask, length = rectangle([[1, 2], [], [3]], [[4], [5], [6]])
    with pytest.raises(PPOError, match="answer 2 of the batch has an empty prompt"):
        pack_answers(input_ids, mask, length, width=32)


def test_equal_prompts_are_read_once() -> None:
    prompts, answers = draw_rows()
    input_ids, mask, length = rectangle(prompts, answers)
    packed = pack_answers(input_ids, mask, length, width=32)
    read = int((packed.tree >= 0).sum())
    distinct = {tuple(prompt) for prompt in prompts}
    assert read == sum(map(len, distinct)) + sum(map(len, answers))
    assert len(packed.ends) == sum(map(len, answers))


@pytest.mark.parametrize("kept", [0, KEPT])
@pytest.mark.parametrize(("count", "piece"), [(1, 0), (255, 0), (256, 0), (700, 0), (700, 30 * 300), (700, PIECE)])
def test_pieces_change_nothing(count: int, piece: int, kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any number of tokens, gradients kept or made again: values and both gradients of the plain formula in float64."""
    monkeypatch.setattr(logprobs, "KEPT", kept)
    monkeypatch.setattr(logprobs, "PIECE", piece)
    dice = torch.Generator().manual_seed(count)
    hidden = torch.randn(count, 8, generator=dice, requires_grad=True)
    weight = torch.randn(30, 8, generator=dice, requires_grad=True)
    tokens = torch.randint(0, 30, (count,), generator=dice)
    push = torch.randn(count, generator=dice)
    exact = (hidden.double() @ weight.double().T / 1.3).log_softmax(-1)[torch.arange(count), tokens]
    wanted = torch.autograd.grad((exact * push).sum(), (hidden, weight))
    found = linear_logprobs(hidden, weight, tokens, 1.3)
    assert torch.allclose(found.double(), exact, atol=1e-5)
    for one, other in zip(torch.autograd.grad((found * push).sum(), (hidden, weight)), wanted, strict=True):
        assert (one - other).abs().max() <= 1e-5 * other.abs().max()


def test_log_probabilities_too_small_for_a_probability() -> None:
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    hidden = torch.tensor([[200.0, 0.0], [85.0, 0.0], [1.0, 0.0]], requires_grad=True)
    tokens = torch.tensor([1, 1, 1])
    exact = (hidden.double() @ weight.double().T).log_softmax(-1)[:, 1]
    found = linear_logprobs(hidden, weight, tokens)
    assert found.tolist() == pytest.approx(exact.tolist(), rel=1e-6)
    (ours,), (theirs,) = (torch.autograd.grad(part.sum(), hidden) for part in (found, exact))
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("kept", [0, KEPT])
def test_mixed_precision_gives_float32_sums_of_bfloat16_products(kept: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logprobs, "KEPT", kept)
    dice = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(40, 16, generator=dice), torch.randn(300, 16, generator=dice).requires_grad_()
    tokens = torch.randint(0, 300, (40,), generator=dice)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = linear_logprobs(hidden, weight, tokens)
    (gradient,) = torch.autograd.grad(found.sum(), weight)
    assert found.dtype == gradient.dtype == torch.float32
    rounded = hidden.bfloat16().float() @ weight.bfloat16().float().T
    assert torch.allclose(found, token_logprobs(rounded.bfloat16(), tokens), atol=1e-4)
    exact = torch.autograd.grad(token_logprobs(hidden @ weight.T, tokens).sum(), weight)[0]
    assert torch.nn.functional.cosine_similarity(gradient.flatten(), exact.flatten(), dim=0) > 0.999


def test_the_reference_is_read_alike() -> None:
    model = make(SHAPES["gpt2"][0])
    prompts, answers = draw_rows()
    input_ids, mask, length = rectangle(prompts, answers)
    logits, _ = response_logits(model, input_ids, mask, length)
    expected = token_logprobs(logits / 0.7, input_ids[:, -length:]) * mask[:, -length:]
    assert torch.allclose(reference_logprobs(model, input_ids, mask, length, 0.7), expected, atol=1e-5)


def test_values_may_come_from_a_network_of_their_own(tmp_path: Path) -> None:
    """A reward model's score is where its values begin; the policy's own numbers do not change, nor do its weights move."""
    policy = word_policy(tmp_path / "policy")
    folder = str(tmp_path / "policy")
    tokenizer = load_tokenizer(folder)
    scorer = load_scorer(folder, tokenizer, new=True)
    torch.nn.init.normal_(scorer.score.weight)  # type: ignore[union-attr, arg-type]
    scorer.save_pretrained(tmp_path / "rm")
    tokenizer.save_pretrained(tmp_path / "rm")
    input_ids, mask = policy.read(["a b c", "d"], room=8)
    input_ids = torch.cat([input_ids, torch.tensor([[0, 1, 2], [3, 4, 5]])], 1)
    mask = torch.cat([mask, torch.ones(2, 3, dtype=torch.bool)], 1)
    actor = ActorCritic(policy.model, critic=load_critic(str(tmp_path / "rm"), policy))
    out = actor(input_ids, mask, 3, 0.7)
    for row in range(2):
        text = input_ids[row][mask[row]]
        for before in (3, 2, 1):  # the score of the text up to there
            logits = scorer(input_ids=text[None, :-before]).logits
            assert out.values[row, -before].item() == pytest.approx(logits.item(), abs=1e-5)
    assert torch.equal(out.logprobs, ActorCritic(policy.model)(input_ids, mask, 3, 0.7).logprobs)
    out.values.sum().backward()
    assert all(weight.grad is None or not weight.grad.any() for weight in policy.model.parameters())
    fresh = ActorCritic(policy.model, critic=load_critic(folder, policy))(input_ids, mask, 3, 0.7)
    assert not fresh.values.any()  # a language model's head for values begins at zero


def test_a_critic_of_other_tokens_is_refused(tmp_path: Path, tiny_causal: Path) -> None:
    policy = word_policy(tmp_path)
    with pytest.raises(PPOError, match="its tokens are not those of"):
        load_critic(str(tiny_causal), policy)
