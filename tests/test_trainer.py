"""PPO against the optimum that is known in closed form, on a world small enough to enumerate."""

from __future__ import annotations

import copy
import dataclasses
import math
from typing import TYPE_CHECKING

import pytest
import torch
from lightning.fabric import Fabric

from ppo.actor import ActorCritic
from ppo.errors import PPOError
from ppo.learning import backward
from ppo.rollout import Rollout, evaluate
from ppo.settings import PPOConfig, Sampling
from ppo.trainer import Trainer, prompt_batches, train
from tests.worlds import PROMPTS, World, all_responses, make_world, response_distribution, word_policy

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from lsplugin.preferences import Prompt
    from ppo.policy import Policy

CPU = Fabric(accelerator="cpu", devices=1)
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


@pytest.mark.slow
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


def test_a_trainer_goes_on_from_its_state_as_if_nothing_had_been(tmp_path: Path) -> None:
    """After two of five updates, through a file: the same numbers to the last bit, and the same weights."""
    config = PPOConfig(
        episodes=160, batch_size=32, minibatch_size=16, learning_rate=3e-3, kl_target=1.0, normalise_scores=True
    )

    def make() -> Trainer:
        return Trainer(config, Sampling(max_new_tokens=3), word_policy(tmp_path), count_a, ["c", "d", "e"], CPU)

    whole = make()
    expected = [whole.step() for _ in range(5)]
    first, second = make(), make()
    for _ in range(2):
        first.step()
    torch.save(first.state_dict(), tmp_path / "state.pt")
    second.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    found = [second.step() for _ in range(3)]
    assert [update.metrics for update in found] == [update.metrics for update in expected[2:]]
    assert [update.answers for update in found] == [update.answers for update in expected[2:]]
    for name, weight in whole.weights.items():
        assert torch.equal(second.weights[name], weight)


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


WHOLE = PPOConfig(
    episodes=10_000,
    batch_size=10_000,
    minibatch_size=10_000,
    lam=1.0,
    vf_coef=0.0,
    kl_coef=0.4,
    whiten_advantages=False,
)


def moved(world: World) -> ActorCritic:
    """The world's policy a little way from its start, so that KL and ratio have something to say."""
    torch.manual_seed(3)
    for weights in world.policy.model.parameters():
        weights.data += 0.05 * torch.randn_like(weights)
    return ActorCritic(world.policy.model, value_init_std=0.3)


def rollout_of_all(
    world: World, actor: ActorCritic, start: torch.nn.Module, config: PPOConfig, *, pad: int = 0
) -> Rollout:
    """Every answer of a world to its first prompt, evaluated as the trainer does; `pad` more columns on either side."""
    count = len(world.responses)
    prompt, prompt_mask = world.policy.read(PROMPTS[:1], room=world.length)
    prompt = torch.nn.functional.pad(prompt, (pad, 0), value=3).expand(count, -1)
    prompt_mask = torch.nn.functional.pad(prompt_mask, (pad, 0)).expand(count, -1)
    responses = torch.nn.functional.pad(world.responses, (0, pad), value=5)
    response_mask = torch.nn.functional.pad(world.response_mask, (0, pad))
    return evaluate(
        actor,
        start,
        CPU,
        config,
        Sampling(max_new_tokens=world.length),
        torch.cat([prompt, responses], dim=1),
        torch.cat([prompt_mask, response_mask], dim=1),
        response_mask,
        world.rewards[0].float(),
        kl_coef=config.kl_coef,
    )


def gradient(actor: ActorCritic, config: PPOConfig, rollout: Rollout) -> torch.Tensor:
    """The gradient of one minibatch, all weights in a row."""
    actor.zero_grad()
    backward(actor, CPU, config, Sampling(), rollout)
    return torch.cat([weights.grad.flatten() for weights in actor.parameters() if weights.grad is not None])


def test_first_minibatch_has_the_gradient_of_the_objective() -> None:
    """Answers weighted with their probability, so without noise; beside it autograd of the exact E[r] - kl_coef KL."""
    world = make_world("C")
    start = copy.deepcopy(world.policy.model)
    actor = moved(world)
    torch.nn.init.zeros_(actor.value_head.weight)
    rollout = rollout_of_all(world, actor, start, WHOLE)
    chances = rollout.logprobs.sum(1).exp()  # (N,)
    assert chances.sum().item() == pytest.approx(1, abs=1e-4)
    found = gradient(actor, WHOLE, rollout._replace(advantages=rollout.advantages * chances[:, None]))
    actor.zero_grad()
    out = actor(rollout.input_ids, rollout.mask, world.length)
    logprobs = out.logprobs.sum(1)
    objective = (
        logprobs.exp() * (world.rewards[0] - WHOLE.kl_coef * (logprobs - rollout.ref_logprobs.sum(1)))
    ).sum() / rollout.response_mask.sum()
    (-objective).backward()
    exact = torch.cat([w.grad.flatten() for w in actor.model.parameters() if w.grad is not None])
    found = found[: len(exact)]  # what is left is the value head's
    assert exact.norm() > 1e-6
    assert (found - exact).norm() < 1e-3 * exact.norm()


@pytest.mark.parametrize("change", ["padding", "order", "microbatches"])
def test_gradient_does_not_depend_on_how_the_batch_lies(change: str) -> None:
    """Answers of four lengths: more padding on both sides, another order, or passes of 100 answers give the same gradient."""
    world = make_world("C")
    start = copy.deepcopy(world.policy.model)
    actor = moved(world)
    config = dataclasses.replace(WHOLE, vf_coef=0.5, entropy_coef=0.1, whiten_advantages=True)
    rollout = rollout_of_all(world, actor, start, config)
    plain = gradient(actor, config, rollout)
    if change == "padding":
        rollout = rollout_of_all(world, actor, start, config, pad=1)
    elif change == "order":
        rollout = rollout.rows(torch.randperm(len(rollout.mask)))
    else:
        config = dataclasses.replace(config, microbatch_size=100)
    assert (gradient(actor, config, rollout) - plain).norm() < 1e-4 * plain.norm()


def test_rollout_holds_whitened_advantages_and_ratio_1() -> None:
    world = make_world("C")
    start = copy.deepcopy(world.policy.model)
    actor = moved(world)
    config = dataclasses.replace(WHOLE, whiten_advantages=PPOConfig().whiten_advantages)
    rollout = rollout_of_all(world, actor, start, config)
    advantages = rollout.advantages[rollout.response_mask]
    assert advantages.mean().item() == pytest.approx(0, abs=1e-5)
    assert advantages.var(correction=0).item() == pytest.approx(1, abs=1e-4)
    losses = backward(actor, CPU, config, Sampling(), rollout)
    assert losses["clipfrac"] == 0
    assert losses["approx_kl"] == pytest.approx(0, abs=1e-7)


def test_a_value_knows_no_token_that_is_yet_to_come() -> None:
    """Two answers that differ in their last token alone have the same values, the last one's included."""
    world = make_world("A")
    actor = moved(world)
    input_ids = torch.tensor([[2, 4, 1, 0], [2, 4, 1, 7]])
    values = actor(input_ids, torch.ones(2, 4, dtype=torch.bool), 3).values
    assert torch.allclose(values[0], values[1], atol=1e-6)
    assert values[0].std() > 1e-3


def entropy_of(world: World) -> float:
    """Of the distribution of all answers, in nats, the mean over prompts."""
    logprobs = world.logprobs()
    return -float((logprobs.exp() * logprobs).sum(1).mean())


def test_entropy_bonus_raises_entropy() -> None:
    """A step against the gradient of the loss, with nothing else to gain, makes the distribution flatter."""
    world = make_world("A")
    start = copy.deepcopy(world.policy.model)
    actor = moved(world)
    config = dataclasses.replace(WHOLE, entropy_coef=1.0)
    rollout = rollout_of_all(world, actor, start, config)
    before = entropy_of(world)
    gradient(actor, config, rollout._replace(advantages=torch.zeros_like(rollout.advantages)))
    with torch.no_grad():
        for weights in actor.model.parameters():
            if weights.grad is not None:
                weights.sub_(0.01 * weights.grad)
    assert entropy_of(world) > before + 1e-4


def test_an_update_ends_at_its_kl_limit(tmp_path: Path) -> None:
    def updates(limit: float | None) -> list[dict[str, float]]:
        policy = word_policy(tmp_path)
        config = PPOConfig(
            episodes=128, batch_size=64, minibatch_size=16, learning_rate=3e-3, cliprange=10.0, update_kl_limit=limit
        )
        return [u.metrics for u in train(config, Sampling(max_new_tokens=3), policy, count_a, ["c", "d"], CPU)]

    free, held = updates(None), updates(1e-3)
    assert [metrics["steps"] for metrics in free] == [16, 16]
    assert all(1 < metrics["steps"] < 16 for metrics in held)
    assert held[-1]["kl"] < free[-1]["kl"]


def test_the_controller_steers_the_kl_of_a_run(tmp_path: Path) -> None:
    """Far above its target the weight of the penalty rises by 2% an update."""
    policy = word_policy(tmp_path)
    config = PPOConfig(
        episodes=4 * 64, batch_size=64, minibatch_size=32, learning_rate=3e-3, kl_coef=0.1, kl_target=1e-4
    )
    coefs = [u.metrics["kl_coef"] for u in train(config, Sampling(max_new_tokens=3), policy, count_a, ["c", "d"], CPU)]
    # the first update measures no KL at all: an error of -0.2 at most
    assert coefs == pytest.approx([0.1, 0.098, 0.098 * 1.02, 0.098 * 1.02**2])


def test_the_value_head_has_a_learning_rate_of_its_own(tmp_path: Path) -> None:
    """Ten times the rate, ten times the first step, which does not change the policy's."""

    def stepped(value_rate: float) -> Trainer:
        config = PPOConfig(episodes=64, batch_size=64, minibatch_size=64, epochs=1, value_rate=value_rate)
        trainer = Trainer(config, Sampling(max_new_tokens=3), word_policy(tmp_path), count_a, ["c", "d"], CPU)
        trainer.step()
        return trainer

    slow, fast = stepped(1.0), stepped(10.0)
    assert slow.actor.value_head.bias.item() != 0
    assert fast.actor.value_head.bias.item() == pytest.approx(10 * slow.actor.value_head.bias.item(), rel=1e-3)
    assert torch.equal(fast.actor.model.lm_head.weight, slow.actor.model.lm_head.weight)


def test_normalised_scores_make_a_run_blind_to_their_scale(tmp_path: Path) -> None:
    def last(scale: float) -> dict[str, float]:
        def scaled(prompts: Sequence[Prompt], answers: Sequence[str]) -> torch.Tensor:
            return 5.0 + scale * count_a(prompts, answers)

        config = PPOConfig(
            episodes=192, batch_size=64, minibatch_size=32, learning_rate=1e-3, normalise_scores=True, score_clip=3.0
        )
        *_, update = train(config, Sampling(max_new_tokens=3), word_policy(tmp_path), scaled, ["c", "d"], CPU)
        return update.metrics

    assert last(100.0)["kl"] == pytest.approx(last(1.0)["kl"], rel=1e-2)


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
        ({"cliprange_value": 0.0}, "--cliprange-value 0.0"),
        ({"kl_coef": -0.1}, "--kl-coef -0.1"),
        ({"minibatch_size": 16, "microbatch_size": 5}, "--minibatch-size 16 .*--microbatch-size 5"),
        ({"minibatch_size": 0}, "--minibatch-size 0: expected more than 0"),
        ({"kl_estimator": "k4"}, "--kl-estimator k4: expected one of k1, k2, k3"),
        ({"kl_target": 6.0, "kl_coef": 0.0}, "--kl-target 6.0 .*--kl-coef"),
        ({"score_clip": 0.0}, "--score-clip 0.0"),
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
