"""The mathematics of PPO as pure functions of tensors.

Shapes: B sequences, T response tokens. `mask` is the response_mask, (B, T), True where a real token stands (EOS included); the
True ones are a prefix of every row.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch

if TYPE_CHECKING:
    from torch import Tensor

ERROR_LIMIT = 0.2
"""How large an error the KL controller sees at most, as a share of the target (Ziegler et al. 2019, section 2.2)."""
GAIN = 0.1
"""How strongly the KL controller reacts to an error: K_beta of Ziegler et al. 2019, section 2.2."""


class Moments(NamedTuple):
    """Mean and variance of all scores so far."""

    total: int = 0
    mean: float = 0.0
    variance: float = 0.0


class PolicyLoss(NamedTuple):
    """What a clipped policy update looks like; all scalars.

    Attributes:
        loss: to be minimised.
        clipfrac: share of tokens whose ratio was clipped.
        approx_kl: estimate of KL(old || new) a token, in nats.
    """

    loss: Tensor
    clipfrac: Tensor
    approx_kl: Tensor


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean of the values where mask is True; a scalar."""
    return (values * mask).sum() / mask.sum().clamp_min(1)


def whiten(values: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """Scale values to unit variance over the mask; with `shift_mean` to zero mean, too. Outside the mask: 0.

    Source: Ziegler et al. 2019 (arXiv 1909.08593), as reproduced by Huang et al. 2024 (arXiv 2403.17031).
    """
    mean = masked_mean(values, mask)
    variance = masked_mean((values - mean) ** 2, mask)
    whitened = (values - mean) * torch.rsqrt(variance + 1e-8)
    return (whitened if shift_mean else whitened + mean) * mask


def token_logprobs(logits: Tensor, tokens: Tensor) -> Tensor:
    """Log-probability of each token under its logits: (..., V), (...) -> (...), float32."""
    chosen = logits.gather(-1, tokens.unsqueeze(-1)).squeeze(-1).float()
    return chosen - logits.float().logsumexp(-1)


def entropy(logits: Tensor) -> Tensor:
    """Entropy of each next-token distribution, in nats: (..., V) -> (...)."""
    logprobs = logits.float().log_softmax(-1)
    return -(logprobs.exp() * logprobs).sum(-1)


def kl_penalty(logprobs: Tensor, ref_logprobs: Tensor, estimator: str = "k1") -> Tensor:
    """Estimate KL(policy || reference) from tokens that the policy drew: (B, T), (B, T) -> (B, T), nats.

        k1 = log p - log q,    k2 = (log p - log q)^2 / 2,    k3 = q / p - 1 - log(q / p)

    Source: Schulman 2020, joschu.net/blog/kl-approx.html. The mean of k1 and of k3 is the KL; that of k2 is not, though close.
    As a penalty in the reward only k1 gives the gradient of the KL: p - q enters k2 and k3 squared, so that near the reference
    they hold nothing back (Tang and Munos 2025, arXiv 2506.09477; Liu et al. 2025, arXiv 2510.01555).
    """
    log_ratio = logprobs - ref_logprobs
    if estimator == "k1":
        return log_ratio
    if estimator == "k2":
        return 0.5 * log_ratio**2
    return torch.expm1(-log_ratio) + log_ratio


def adapted_kl_coef(kl_coef: float, kl: float, *, target: float) -> float:
    """Move the penalty's weight so that the KL nears its target: up where the policy strayed too far, down where it may go on.

        e = clip((KL - target) / target, -0.2, 0.2),    kl_coef' = kl_coef (1 + K e)

    Source: Ziegler et al. 2019 (arXiv 1909.08593), section 2.2.

    Args:
        kl_coef: of the last update.
        kl: measured in it, nats a sequence.
        target: wanted, nats a sequence.
    """
    error = min(max((kl - target) / target, -ERROR_LIMIT), ERROR_LIMIT)
    return kl_coef * (1 + GAIN * error)


def updated_moments(moments: Moments, scores: Tensor) -> Moments:
    """Mean and variance of the scores so far with (B,) new ones, without keeping any.

        n = a + b,    d = mean_b - mean_a,    mean = mean_a + d b / n,    variance = (a var_a + b var_b + d^2 a b / n) / n

    Source: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample variances".
    """
    new, old = len(scores), moments.total
    total = old + new
    mean, variance = float(scores.double().mean()), float(scores.double().var(correction=0))
    apart = mean - moments.mean
    return Moments(
        total=total,
        mean=moments.mean + apart * new / total,
        variance=(old * moments.variance + new * variance + apart**2 * old * new / total) / total,
    )


def shaped_scores(scores: Tensor, moments: Moments | None, clip: float | None) -> Tensor:
    """Normalise scores by the moments of all so far, then clip them to [-clip, clip]; None leaves out either: (B,) -> (B,).

    Source: Engstrom et al. 2020, "Implementation matters in deep policy gradients" (arXiv 2005.12729), section 3.
    """
    if moments is not None:
        scores = (scores - moments.mean) / (moments.variance + 1e-8) ** 0.5
    return scores if clip is None else scores.clamp(-clip, clip)


def token_rewards(scores: Tensor, kl: Tensor, mask: Tensor, *, kl_coef: float) -> Tensor:
    """Reward of each token: the KL penalty everywhere, the score on the last token.

        r_t = -kl_coef * kl_t + [t is last] * score

    Source: Ouyang et al. 2022 (arXiv 2203.02155), section 3.5; Stiennon et al. 2020 (arXiv 2009.01325), section 3.4.

    Args:
        scores: (B,).
        kl: estimate of each token, (B, T); see `kl_penalty`.
        mask: (B, T).
        kl_coef: weight of the penalty.

    Returns:
        rewards, (B, T); 0 outside the mask.
    """
    last = mask.sum(1) - 1  # (B,)
    rewards = -kl_coef * kl * mask
    return rewards.scatter_add(1, last.clamp_min(0).unsqueeze(1), (scores * (last >= 0)).unsqueeze(1))


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, lam: float) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over responses that end with their mask.

        delta_t = r_t + gamma V_{t+1} - V_t,    A_t = delta_t + gamma lam A_{t+1},    R_t = A_t + V_t

    Source: Schulman et al. 2016 (arXiv 1506.02438), equation 16.

    Args:
        rewards: (B, T).
        values: V before each token, (B, T).
        mask: (B, T).
        gamma: discount a token.
        lam: bias against variance.

    Returns:
        (advantages, returns), both (B, T); 0 outside the mask.
    """
    values = values * mask
    advantages = torch.zeros_like(rewards)
    ahead = torch.zeros_like(rewards[:, 0])  # A_{t+1}, (B,)
    for t in reversed(range(rewards.shape[1])):
        next_value = values[:, t + 1] if t + 1 < rewards.shape[1] else torch.zeros_like(ahead)
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        ahead = (delta + gamma * lam * ahead) * mask[:, t]
        advantages[:, t] = ahead
    return advantages, (advantages + values) * mask


def policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, cliprange: float
) -> PolicyLoss:
    """Clipped surrogate objective, as a loss.

        L = -mean( min(ratio A, clip(ratio, 1 - cliprange, 1 + cliprange) A) ),    ratio = exp(logprobs - old_logprobs)

    Source: Schulman et al. 2017 (arXiv 1707.06347), equation 7. approx_kl is Schulman's k3 (2020): ratio - 1 - log ratio.

    Args:
        logprobs: of the policy being updated, (B, T).
        old_logprobs: of the policy that sampled, (B, T).
        advantages: (B, T).
        mask: (B, T).
        cliprange: how far a ratio may move an update.
    """
    log_ratio = (logprobs - old_logprobs) * mask
    ratio = log_ratio.exp()
    unclipped, clipped = -advantages * ratio, -advantages * ratio.clamp(1 - cliprange, 1 + cliprange)
    return PolicyLoss(
        loss=masked_mean(torch.maximum(unclipped, clipped), mask),
        clipfrac=masked_mean((clipped > unclipped).float(), mask).detach(),
        approx_kl=masked_mean(ratio - 1 - log_ratio, mask).detach(),
    )


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, cliprange_value: float | None = None
) -> Tensor:
    """Squared error of the values, clipped where a limit is given; a scalar.

        L = 1/2 mean( max((V - R)^2, (clip(V, V_old - c, V_old + c) - R)^2) )

    Source: OpenAI's implementation of PPO, as Huang et al. 2022, "The 37 implementation details of PPO", number 9, describe it.

    Args:
        values: (B, T).
        old_values: at sampling time, (B, T).
        returns: (B, T).
        mask: (B, T).
        cliprange_value: c; None leaves the clipping out: L = 1/2 mean( (V - R)^2 ).
    """
    if cliprange_value is None:
        return 0.5 * masked_mean((values - returns) ** 2, mask)
    clipped = values.clamp(old_values - cliprange_value, old_values + cliprange_value)
    return 0.5 * masked_mean(torch.maximum((values - returns) ** 2, (clipped - returns) ** 2), mask)


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """Share of the returns' variance that the values explain; 1 is perfect, 0 is a constant; a scalar."""
    error, spread = (returns - values)[mask], returns[mask]
    return 1 - error.var(correction=0) / spread.var(correction=0).clamp_min(1e-8)
