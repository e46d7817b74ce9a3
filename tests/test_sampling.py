"""The decode loop against enumeration and against transformers' own generate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from ppo.errors import PPOError
from ppo.sampling import draw, next_logits, sample
from ppo.settings import Sampling
from tests.worlds import all_responses, response_distribution, word_policy

if TYPE_CHECKING:
    from pathlib import Path


def dice(rows: int, tokens: int, *, seed: int = 0) -> torch.Tensor:
    """Random numbers of every token that may be drawn."""
    return torch.rand(rows, tokens, generator=torch.Generator().manual_seed(seed))


def test_samples_follow_the_distribution(tmp_path: Path) -> None:
    """Frequencies of 40,000 answers against the probabilities that the chain rule gives."""
    policy = word_policy(tmp_path)
    expected = response_distribution(policy, "c", 2, temperature=0.7)
    input_ids, mask = policy.read(["c"] * 40_000, room=2)
    sampling = Sampling(max_new_tokens=2, temperature=0.7)
    drawn, drawn_mask = sample(policy, input_ids, mask, sampling=sampling, uniforms=dice(40_000, 2, seed=0))
    index = {tuple(response): number for number, response in enumerate(all_responses(2))}
    counts = torch.zeros(len(index))
    for row, row_mask in zip(drawn, drawn_mask, strict=True):
        counts[index[tuple(row[row_mask].tolist())]] += 1
    error = (counts / 40_000 - expected).abs()
    bound = 5 * (expected * (1 - expected) / 40_000).sqrt() + 1e-4  # five standard errors
    assert (error < bound).all()


def test_prompts_of_different_lengths_do_not_touch_each_other(tmp_path: Path) -> None:
    """Padding changes nothing: greedy answers in one batch equal those one at a time, and those of transformers."""
    policy = word_policy(tmp_path, seed=3)
    prompts = ["a", "b c d e a b", "e d", "c c c c"]
    greedy = Sampling(max_new_tokens=8, top_k=1)
    together = policy.write(*sample(policy, *policy.read(prompts, room=8), sampling=greedy, uniforms=dice(4, 8)))
    for prompt, text in zip(prompts, together, strict=True):
        input_ids, mask = policy.read([prompt], room=8)
        theirs = policy.model.generate(  # type: ignore[operator]
            input_ids=input_ids, attention_mask=mask.long(), max_new_tokens=8, do_sample=False
        )
        assert str(policy.tokenizer.decode(theirs[0, input_ids.shape[1] :], skip_special_tokens=True)).strip() == text


def test_finished_answers_leave_and_the_mask_ends_with_eos(tmp_path: Path) -> None:
    policy = word_policy(tmp_path)
    input_ids, mask = policy.read(["c"] * 200, room=12)
    drawn, drawn_mask = sample(
        policy, input_ids, mask, sampling=Sampling(max_new_tokens=12), uniforms=dice(200, 12, seed=1)
    )
    assert drawn.shape == drawn_mask.shape
    lengths = drawn_mask.sum(1)
    assert lengths.max() == drawn.shape[1]
    assert len(lengths.unique()) > 1  # some end early, and they left the batch
    for row, row_mask, length in zip(drawn, drawn_mask, lengths.tolist(), strict=True):
        assert row_mask[:length].all()
        assert not row_mask[length:].any()
        assert 5 not in row[: length - 1].tolist()
        assert length == 12 or row[length - 1] == 5
        assert (row[length:] == policy.pad_token_id).all()


def test_an_answer_is_its_prompts_and_its_numbers_whatever_the_batch_holds(tmp_path: Path) -> None:
    """Alone, in another order, among equal prompts, which are read once, or among longer ones: the same answer."""
    policy = word_policy(tmp_path)
    prompts = ["c", "d e", "c", "a b c d e", "c", "d e"] * 5
    sampling, uniforms = Sampling(max_new_tokens=6), dice(30, 6, seed=7)

    def answers(rows: list[int]) -> list[str]:
        ids, mask = policy.read([prompts[row] for row in rows], room=6)
        return policy.write(*sample(policy, ids, mask, sampling=sampling, uniforms=uniforms[rows]))

    together = answers(list(range(30)))
    assert answers(list(range(30))[::-1])[::-1] == together
    assert [answers([row])[0] for row in range(30)] == together
    assert len({together[row] for row in (0, 2, 4)}) > 1  # equal prompts, but not equal numbers


def test_cached_steps_give_the_logits_of_a_whole_pass(tmp_path: Path) -> None:
    from transformers import DynamicCache

    policy = word_policy(tmp_path)
    input_ids, mask = policy.read(["a b c", "d"], room=4)
    cache = DynamicCache(config=policy.model.config)
    next_logits(policy.model, input_ids, mask, cache)
    token = torch.tensor([[1], [2]])
    longer = torch.cat([mask, torch.ones(2, 1, dtype=torch.bool)], dim=1)
    stepped = next_logits(policy.model, token, longer, cache)
    whole = policy.model(
        input_ids=torch.cat([input_ids, token], dim=1),
        attention_mask=longer.long(),
        position_ids=(longer.long().cumsum(1) - 1).clamp_min(0),
    ).logits[:, -1]
    assert torch.allclose(stepped, whole, atol=1e-5)


def test_top_k_and_top_p_draw_from_the_likeliest_alone() -> None:
    logits = torch.tensor([[0.4, 0.3, 0.2, 0.1]]).log().expand(4000, 4)
    numbers = dice(4000, 1)[:, 0]
    top_k = draw(logits, Sampling(top_k=2), numbers)
    assert set(top_k.tolist()) == {0, 1}
    assert (top_k == 0).float().mean().item() == pytest.approx(4 / 7, abs=0.03)
    # 0.4 + 0.3 reach 0.6; without 0.3 it would be 0.4
    top_p = draw(logits, Sampling(top_p=0.6), numbers)
    assert set(top_p.tolist()) == {0, 1}
    assert set(draw(logits, Sampling(top_p=0.05), numbers).tolist()) == {0}


def test_a_token_without_probability_is_never_drawn_whatever_the_number() -> None:
    """At both ends of the unit interval, where rounding could reach past the last token that may be drawn."""
    logits = torch.full((3, 50), -torch.inf)
    logits[:, 10:40] = torch.randn(3, 30, generator=torch.Generator().manual_seed(0))
    drawn = draw(logits, Sampling(), torch.tensor([0.0, 0.5, 1 - 2**-24]))
    assert drawn[0] == 10
    assert 10 <= drawn[1] < 40
    assert drawn[2] == 39


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"max_new_tokens": 0}, "--max-new-tokens 0"),
        ({"temperature": 0.0}, "--temperature 0.0"),
        ({"top_k": -1}, "--top-k -1"),
        ({"top_p": 0.0}, "--top-p 0.0"),
    ],
)
def test_bad_settings_are_named(values: dict[str, float], said: str) -> None:
    with pytest.raises(PPOError, match=said):
        Sampling(**values)  # type: ignore[arg-type]
