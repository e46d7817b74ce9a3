"""PPO against the optimum that is known in closed form, on a world small enough to enumerate."""

from __future__ import annotations

import copy
import math
from typing import TYPE_CHECKING

import pytest
import torch
from lightning.fabric import Fabric

from ppo.errors import PPOError
from ppo.settings import PPOConfig, Sampling
from ppo.trainer import prompt_batches, train
from tests.worlds import all_responses, response_distribution, word_policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lsplugin.preferences import Prompt
    from ppo.policy import Policy

LENGTH = 2
KL_COEF = 0.5


def count_a(prompts: Sequence[Prompt], answers: Sequence[str]) -> torch.Tensor:
    """One point for every `a`, one more for ending with `b`, depending on nothing else."""
    return torch.tensor([answer.split().count("a") + 1.0 * answer.endswith("b") for answer in answers])


def optimum(policy: Policy, prompt: str) -> torch.Tensor:
    """pi*(y|x) ~ ref(y|x) exp(r(x, y) / kl_coef), over all_responses."""
    texts = [
        policy.write(torch.tensor([ids]), torch.ones(1, len(ids), dtype=torch.bool))[0] for ids in all_responses(LENGTH)
    ]
    tilted = response_distribution(policy, prompt, LENGTH) * (count_a([prompt] * len(texts), texts) / KL_COEF).exp()
    return tilted / tilted.sum()


def distance(distribution: torch.Tensor, best: torch.Tensor) -> float:
    """KL(distribution || optimum) in nats: 0 at the optimum; times kl_coef, all that the objective lacks of its best."""
    return float((distribution * (distribution / best).log()).sum())


OPTIMUM_CONFIG = PPOConfig(
    episodes=100 * 256,
    batch_size=256,
    minibatch_size=64,
    epochs=2,
    learning_rate=3e-3,
    kl_coef=KL_COEF,
    lam=1.0,
    missing_eos_penalty=0.0,
)


def test_ppo_reaches_the_closed_form_optimum(tmp_path: Path) -> None:
    policy = word_policy(tmp_path)
    start = response_distribution(policy, "c", LENGTH)
    assert start.sum().item() == pytest.approx(1, abs=1e-5)
    best = optimum(policy, "c")
    before = distance(start, best)
    for _ in train(
        OPTIMUM_CONFIG, Sampling(max_new_tokens=LENGTH), policy, count_a, ["c"], Fabric(accelerator="cpu", devices=1)
    ):
        pass
    after = distance(response_distribution(policy, "c", LENGTH), best)
    assert before > 0.5  # there is something to learn
    assert after < 0.01, f"KL to the optimum went from {before:.3f} to {after:.4f} nats"


def test_first_update_measures_itself(tmp_path: Path) -> None:
    """Before any step the policy is the start: no KL, ratio 1, and the score is the plain mean of the reward."""
    policy = word_policy(tmp_path)
    config = PPOConfig(episodes=32, batch_size=32, minibatch_size=32, epochs=1, learning_rate=1e-9)
    (update,) = train(
        config, Sampling(max_new_tokens=4), policy, count_a, ["c", "d"], Fabric(accelerator="cpu", devices=1)
    )
    assert update.metrics["kl"] == pytest.approx(0, abs=1e-5)
    assert update.metrics["approx_kl"] == pytest.approx(0, abs=1e-6)
    assert update.metrics["clipfrac"] == 0
    assert update.metrics["score"] == pytest.approx(count_a(update.prompts, update.answers).mean().item())
    assert sorted(set(map(str, update.prompts))) == ["c", "d"]


def test_reference_stays_where_it_was(tmp_path: Path) -> None:
    """The KL that a run reports is the KL to the start, not to the policy of the last update."""
    policy = word_policy(tmp_path)
    start = copy.deepcopy(policy.model)
    config = PPOConfig(episodes=10 * 64, batch_size=64, minibatch_size=64, learning_rate=3e-3, kl_coef=0.0, seed=1)
    *_, last = train(
        config, Sampling(max_new_tokens=LENGTH), policy, count_a, ["c"], Fabric(accelerator="cpu", devices=1)
    )
    now = response_distribution(policy, "c", LENGTH)
    then = response_distribution(policy._replace(model=start), "c", LENGTH)
    exact = float((now * (now / then).log()).sum())
    assert exact > 0.3
    assert last.metrics["kl"] == pytest.approx(exact, rel=0.5)


def test_same_seed_same_run(tmp_path: Path) -> None:
    def run(seed: int) -> list[dict[str, float]]:
        policy = word_policy(tmp_path / str(seed))
        config = PPOConfig(episodes=96, batch_size=32, minibatch_size=16, learning_rate=1e-3, seed=seed)
        torch.manual_seed(0)
        return [
            u.metrics
            for u in train(
                config, Sampling(max_new_tokens=3), policy, count_a, ["c", "d"], Fabric(accelerator="cpu", devices=1)
            )
        ]

    assert run(5) == run(5)
    assert run(5) != run(6)


def test_missing_eos_is_penalised(tmp_path: Path) -> None:
    """With a penalty as the only reward, answers learn to end."""
    policy = word_policy(tmp_path)
    config = PPOConfig(
        episodes=30 * 64, batch_size=64, minibatch_size=32, learning_rate=3e-3, kl_coef=0.01, missing_eos_penalty=3.0
    )

    def nothing(prompts: Sequence[Prompt], answers: Sequence[str]) -> torch.Tensor:
        return torch.zeros(len(answers))

    ended = [
        update.metrics["ended"]
        for update in train(
            config, Sampling(max_new_tokens=3), policy, nothing, ["c"], Fabric(accelerator="cpu", devices=1)
        )
    ]
    assert ended[0] < 0.7
    assert ended[-1] > 0.95


def test_prompt_batches_use_every_prompt_before_any_comes_again() -> None:
    batches = prompt_batches(["a", "b", "c", "d", "e"], 2, seed=0)
    first = [prompt for _ in range(5) for prompt in next(batches)]
    assert sorted(first[:5]) == ["a", "b", "c", "d", "e"]
    assert sorted(first[5:]) == ["a", "b", "c", "d", "e"]


def test_divergence_stops_with_one_line(tmp_path: Path) -> None:
    def broken(prompts: Sequence[Prompt], answers: Sequence[str]) -> torch.Tensor:
        return torch.full((len(answers),), math.nan)

    config = PPOConfig(episodes=32, batch_size=32, minibatch_size=32)
    with pytest.raises(PPOError, match="diverged"):
        next(
            train(
                config,
                Sampling(max_new_tokens=3),
                word_policy(tmp_path),
                broken,
                ["c"],
                Fabric(accelerator="cpu", devices=1),
            )
        )


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"batch_size": 10, "minibatch_size": 4}, "--batch-size 10 .*--minibatch-size 4"),
        ({"episodes": 10, "batch_size": 64}, "--episodes 10 .*--batch-size 64"),
        ({"learning_rate": 0.0}, "--learning-rate 0.0"),
        ({"kl_coef": -0.1}, "--kl-coef -0.1"),
    ],
)
def test_settings_name_both_flags_and_both_values(values: dict[str, float], said: str) -> None:
    with pytest.raises(PPOError, match=said):
        PPOConfig(**values)  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_ppo_reaches_the_optimum_on_a_gpu_in_mixed_precision(tmp_path: Path) -> None:
    policy = word_policy(tmp_path)
    best = optimum(policy, "c")
    before = distance(response_distribution(policy, "c", LENGTH), best)
    policy.model.to("cuda")  # type: ignore[arg-type]
    for _ in train(
        OPTIMUM_CONFIG,
        Sampling(max_new_tokens=LENGTH),
        policy,
        count_a,
        ["c"],
        Fabric(accelerator="cuda", devices=1, precision="bf16-mixed"),
    ):
        pass
    policy.model.to("cpu")  # type: ignore[arg-type]
    after = distance(response_distribution(policy, "c", LENGTH), best)
    assert after < 0.05 < before
