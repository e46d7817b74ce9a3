"""The mathematics of PPO against numbers worked by hand and brute force."""

from __future__ import annotations

import math

import pytest
import torch

from ppo import core


def mask_of(*lengths: int, width: int) -> torch.Tensor:
    return torch.arange(width)[None, :] < torch.tensor(lengths)[:, None]


def test_masked_mean_ignores_what_is_masked() -> None:
    values = torch.tensor([[1.0, 3.0, 1e9], [5.0, 1e9, 1e9]])
    assert core.masked_mean(values, mask_of(2, 1, width=3)).item() == pytest.approx(3.0)


def test_whiten_gives_mean_0_and_variance_1_over_the_mask() -> None:
    torch.manual_seed(0)
    mask = mask_of(5, 2, 7, width=7)
    white = core.whiten(torch.randn(3, 7) * 4 + 10, mask)
    assert white[mask].mean().item() == pytest.approx(0, abs=1e-6)
    assert white[mask].var(correction=0).item() == pytest.approx(1, abs=1e-5)
    assert (white[~mask] == 0).all()


def test_whiten_can_keep_the_mean() -> None:
    values = torch.tensor([[1.0, 2.0, 3.0]])
    white = core.whiten(values, mask_of(3, width=3), shift_mean=False)
    # mean 2, standard deviation sqrt(2/3): 2 + (1 - 2) / sqrt(2/3) = 2 - 1.224745
    assert white.tolist()[0] == pytest.approx([2 - math.sqrt(1.5), 2.0, 2 + math.sqrt(1.5)], abs=1e-5)


def test_token_logprobs_and_entropy_against_probabilities() -> None:
    probabilities = torch.tensor([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]])
    logits = probabilities.log() + 7.0  # a constant changes nothing
    logprobs = core.token_logprobs(logits, torch.tensor([[1, 2]]))
    assert logprobs.exp().flatten().tolist() == pytest.approx([0.25, 0.8])
    # -(1/2 log 1/2 + 2 * 1/4 log 1/4) = 1.5 log 2
    assert core.entropy(logits)[0, 0].item() == pytest.approx(1.5 * math.log(2))


def test_token_rewards_penalise_every_token_and_score_the_last() -> None:
    kl = torch.tensor([[1.0, 2.0, 99.0], [-1.0, 99.0, 99.0]])
    rewards = core.token_rewards(torch.tensor([10.0, 20.0]), kl, mask_of(2, 1, width=3), kl_coef=0.1)
    assert rewards.tolist() == [pytest.approx([-0.1, 9.8, 0.0]), pytest.approx([20.1, 0.0, 0.0])]


def test_an_empty_response_gets_no_reward() -> None:
    rewards = core.token_rewards(torch.tensor([10.0]), torch.ones(1, 3), mask_of(0, width=3), kl_coef=0.1)
    assert rewards.tolist() == [[0.0, 0.0, 0.0]]


@pytest.mark.parametrize(("gamma", "lam"), [(1.0, 0.95), (0.9, 1.0), (0.7, 0.0), (1.0, 1.0)])
def test_gae_is_the_sum_of_discounted_errors(gamma: float, lam: float) -> None:
    """Equation 16 of the paper as the double sum that it is, one response at a time, without recursion."""
    torch.manual_seed(1)
    rewards, values = torch.randn(4, 6), torch.randn(4, 6)
    lengths = [6, 3, 1, 5]
    advantages, returns = core.gae(rewards, values, mask_of(*lengths, width=6), gamma=gamma, lam=lam)
    for row, length in enumerate(lengths):
        r, v = rewards[row, :length].tolist(), [*values[row, :length].tolist(), 0.0]
        errors = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        for t in range(length):
            expected = sum((gamma * lam) ** (s - t) * errors[s] for s in range(t, length))
            assert advantages[row, t].item() == pytest.approx(expected, abs=1e-5)
            assert returns[row, t].item() == pytest.approx(expected + v[t], abs=1e-5)
        assert (advantages[row, length:] == 0).all()
        assert (returns[row, length:] == 0).all()


def test_gae_with_lam_1_and_no_values_is_the_reward_to_go() -> None:
    rewards = torch.tensor([[1.0, 2.0, 4.0]])
    advantages, _ = core.gae(rewards, torch.zeros(1, 3), mask_of(3, width=3), gamma=1.0, lam=1.0)
    assert advantages.tolist() == [[7.0, 6.0, 4.0]]


def test_first_minibatch_has_ratio_1_and_the_plain_policy_gradient() -> None:
    torch.manual_seed(2)
    logprobs = torch.randn(2, 4, requires_grad=True)
    advantages, mask = torch.randn(2, 4), mask_of(4, 2, width=4)
    result = core.policy_loss(logprobs, logprobs.detach().clone(), advantages, mask, cliprange=0.2)
    result.loss.backward()  # type: ignore[no-untyped-call]
    assert result.clipfrac == 0
    assert result.approx_kl == 0
    assert logprobs.grad is not None
    assert torch.allclose(logprobs.grad, -(advantages * mask) / 6, atol=1e-7)


def test_policy_loss_stops_pushing_beyond_the_clip() -> None:
    # ratios 1.5 and 0.5 with cliprange 0.2; only what would push further out is clipped
    old = torch.zeros(1, 4)
    new = torch.tensor([[1.5, 1.5, 0.5, 0.5]]).log().requires_grad_()
    advantages = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    result = core.policy_loss(new, old, advantages, mask_of(4, width=4), cliprange=0.2)
    # -(min(1.5, 1.2) + min(-1.5, -1.2) + min(0.5, 0.8) + min(-0.5, -0.8)) / 4 = -(1.2 - 1.5 + 0.5 - 0.8) / 4
    assert result.loss.item() == pytest.approx(0.15)
    assert result.clipfrac.item() == pytest.approx(0.5)
    result.loss.backward()  # type: ignore[no-untyped-call]
    assert new.grad is not None
    assert new.grad[0, 0] == 0  # up, already too high
    assert new.grad[0, 3] == 0  # down, already too low
    assert new.grad[0, 1] > 0  # down, and free to
    assert new.grad[0, 2] < 0  # up, and free to


def test_approx_kl_converges_to_the_kl() -> None:
    torch.manual_seed(3)
    old, new = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.4, 0.4, 0.2])
    drawn = torch.multinomial(old, 200_000, replacement=True)
    mask = torch.ones(1, len(drawn), dtype=torch.bool)
    result = core.policy_loss(
        new.log()[drawn][None], old.log()[drawn][None], torch.zeros(1, len(drawn)), mask, cliprange=0.2
    )
    exact = float((old * (old / new).log()).sum())
    assert result.approx_kl.item() == pytest.approx(exact, rel=0.03)


def test_value_loss_takes_the_worse_of_clipped_and_unclipped() -> None:
    values, old, returns = torch.tensor([[1.0, 0.1]]), torch.zeros(1, 2), torch.tensor([[2.0, 0.0]])
    # first: (1 - 2)^2 = 1 against (0.2 - 2)^2 = 3.24; second: 0.01 both ways
    loss = core.value_loss(values, old, returns, mask_of(2, width=2), cliprange_value=0.2)
    assert loss.item() == pytest.approx(0.5 * (3.24 + 0.01) / 2)
    assert core.value_loss(values, old, returns, mask_of(2, width=2)).item() == pytest.approx(0.5 * (1 + 0.01) / 2)


def test_explained_variance_is_1_for_the_truth_and_0_for_a_constant() -> None:
    returns, mask = torch.tensor([[1.0, 2.0, 5.0, 77.0]]), mask_of(3, width=4)
    assert core.explained_variance(returns, returns, mask).item() == pytest.approx(1)
    assert core.explained_variance(torch.full((1, 4), 3.0), returns, mask).item() == pytest.approx(0)


P, Q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.2, 0.3, 0.5])
"""Policy and reference over three tokens; KL(P || Q) = 0.5 log 2.5 + 0.2 log 0.4 = 0.274887."""


def test_k1_and_k3_are_unbiased_and_k2_is_not() -> None:
    """Means over every token, weighted with its probability, against the KL worked by hand."""
    kl = 0.5 * math.log(2.5) + 0.2 * math.log(0.4)
    means = {name: float((P * core.kl_penalty(P.log(), Q.log(), name)).sum()) for name in ("k1", "k2", "k3")}
    assert means["k1"] == pytest.approx(kl, abs=1e-6)
    assert means["k3"] == pytest.approx(kl, abs=1e-6)
    # 0.5 (log 2.5)^2 / 2 + 0.2 (log 0.4)^2 / 2 = 0.7 * 0.839588 / 2
    assert means["k2"] == pytest.approx(0.293856, abs=1e-5)
    assert (core.kl_penalty(P.log(), Q.log(), "k3") >= 0).all()
    assert core.kl_penalty(P.log(), Q.log(), "k1").min() < 0


def test_only_k1_in_the_reward_has_the_gradient_of_the_kl() -> None:
    """E[penalty * grad log p], by enumeration, beside the gradient of the KL that autograd gives."""
    logits = P.log().clone().requires_grad_()
    logprobs = logits.log_softmax(0)
    (exact,) = torch.autograd.grad((logprobs.exp() * (logprobs - Q.log())).sum(), logits, retain_graph=True)
    found = {}
    for name in ("k1", "k2", "k3"):
        penalty = core.kl_penalty(P.log(), Q.log(), name)
        (found[name],) = torch.autograd.grad((P * penalty * logprobs).sum(), logits, retain_graph=True)
    assert torch.allclose(found["k1"], exact, atol=1e-6)
    assert found["k2"].norm() < 0.6 * exact.norm()
    assert found["k3"].norm() < 0.6 * exact.norm()


def test_kl_controller_moves_by_at_most_two_percent() -> None:
    # KL 6.6 for 6: error 0.1, so times 1 + 0.1 * 0.1; KL 60 and KL 0 are clipped to an error of 0.2
    assert core.adapted_kl_coef(0.5, 6.6, target=6.0) == pytest.approx(0.505)
    assert core.adapted_kl_coef(0.5, 60.0, target=6.0) == pytest.approx(0.51)
    assert core.adapted_kl_coef(0.5, 0.0, target=6.0) == pytest.approx(0.49)


def test_moments_in_pieces_are_those_of_the_whole() -> None:
    scores = torch.tensor([3.0, -1.0, 4.0, 1.0, 5.0, 9.0, -2.0])
    moments = core.Moments()
    for piece in scores.split([2, 1, 4]):
        moments = core.updated_moments(moments, piece)
    assert moments.total == 7
    assert moments.mean == pytest.approx(19 / 7)
    # sum of squares 137, so 137/7 - (19/7)^2
    assert moments.variance == pytest.approx(137 / 7 - (19 / 7) ** 2)


def test_scores_are_normalised_then_clipped() -> None:
    scores, moments = torch.tensor([0.0, 10.0, 26.0]), core.Moments(8, 10.0, 16.0)
    assert core.shaped_scores(scores, None, None).tolist() == [0.0, 10.0, 26.0]
    assert core.shaped_scores(scores, None, 12.0).tolist() == [0.0, 10.0, 12.0]
    assert core.shaped_scores(scores, moments, None).tolist() == pytest.approx([-2.5, 0.0, 4.0])
    assert core.shaped_scores(scores, moments, 3.0).tolist() == pytest.approx([-2.5, 0.0, 3.0])
