"""Sampling by vLLM, where it is installed: on a GPU, or a build of it for CPUs."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest
import torch
from lightning.fabric import Fabric

from ppo import vllm_sampler
from ppo.errors import PPOError
from ppo.lora import add_adapters
from ppo.policy import load_policy
from ppo.settings import PPOConfig, Sampling
from ppo.trainer import Trainer
from rm_lightning.adapters import merged_weights
from tests.helpers import complaint
from tests.test_samplers import count_a
from tests.test_sampling import dice
from tests.worlds import all_responses, response_distribution, word_policy

if TYPE_CHECKING:
    from ppo.policy import Policy
    from ppo.vllm_sampler import VLLMSampler

HERE = find_spec("vllm") is not None
needs_vllm = [pytest.mark.gpu, pytest.mark.skipif(not HERE, reason="needs vllm"), pytest.mark.xdist_group("vllm")]
LENGTH = 2


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Policy, VLLMSampler]:
    """Make a policy and the engine that all tests ask: to start it takes half a minute."""
    from ppo.vllm_sampler import VLLMSampler

    policy = word_policy(tmp_path_factory.mktemp("policy"), hidden=64)
    return policy, VLLMSampler(policy, Fabric(accelerator="cpu", devices=1), memory=0.1)


def frequencies(sampler: VLLMSampler, policy: Policy, sampling: Sampling, count: int) -> torch.Tensor:
    """Count the answers to one prompt, in the order of `all_responses`; checks that each is one of them."""
    ids, mask = policy.read(["c"] * count, room=LENGTH)
    drawn, drawn_mask = sampler(policy, ids, mask, sampling=sampling, uniforms=dice(count, LENGTH, seed=3))
    index = {tuple(response): number for number, response in enumerate(all_responses(LENGTH))}
    counts = torch.zeros(len(index))
    for row, row_mask in zip(drawn, drawn_mask, strict=True):
        counts[index[tuple(row[row_mask].tolist())]] += 1
    return counts / count


class TestEngine:
    """One engine, asked many things."""

    pytestmark = needs_vllm

    @pytest.mark.parametrize("temperature", [1.0, 0.7])
    def test_samples_follow_the_policy_as_it_stands(self, made: tuple[Policy, VLLMSampler], temperature: float) -> None:
        """Frequencies of answers against the chain rule's probabilities, before and after the weights have moved."""
        policy, sampler = load_policy(made[0].name), made[1]
        count, sampling = 4000, Sampling(max_new_tokens=LENGTH, temperature=temperature)
        found = []
        for seed in range(2):
            expected = response_distribution(policy, "c", LENGTH, temperature=temperature)
            error = (frequencies(sampler, policy, sampling, count) - expected).abs()
            assert (error < 5 * (expected * (1 - expected) / count).sqrt() + 2 / count).all()
            found.append(expected)
            with torch.no_grad():
                for weight in policy.model.parameters():
                    weight.add_(0.03 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed)))
        assert (found[0] - found[1]).abs().sum() > 0.2

    def test_an_answer_is_its_prompts_and_its_numbers(self, made: tuple[Policy, VLLMSampler]) -> None:
        policy, sampler = made
        prompts = ["c", "d e", "c", "a b c d e", "c", "d e"] * 5
        sampling, uniforms = Sampling(max_new_tokens=6, top_k=6, top_p=0.95), dice(30, 6, seed=7)

        def answers(rows: list[int]) -> list[str]:
            ids, mask = policy.read([prompts[row] for row in rows], room=6)
            return policy.write(*sampler(policy, ids, mask, sampling=sampling, uniforms=uniforms[rows]))

        together = answers(list(range(30)))
        assert answers(list(range(30))[::-1])[::-1] == together
        assert [answers([row])[0] for row in range(5)] == together[:5]
        assert len(set(together)) > 10

    def test_answers_end_with_eos_and_are_padded(self, made: tuple[Policy, VLLMSampler]) -> None:
        policy, sampler = made
        ids, mask = policy.read(["c"] * 200, room=8)
        drawn, drawn_mask = sampler(policy, ids, mask, sampling=Sampling(max_new_tokens=8), uniforms=dice(200, 8))
        lengths = drawn_mask.sum(1)
        assert len(lengths.unique()) > 2
        assert torch.equal(drawn_mask, torch.arange(drawn.shape[1]) < lengths[:, None])
        assert (drawn[~drawn_mask] == policy.pad_token_id).all()
        ends = (drawn == 5) & drawn_mask
        assert ((lengths == 8) | (ends.sum(1) == 1)).all()
        assert (ends.float().argmax(1)[ends.any(1)] == lengths[ends.any(1)] - 1).all()

    def test_adapters_are_added_to_the_weights(self, made: tuple[Policy, VLLMSampler]) -> None:
        policy, sampler = made
        tuned = load_policy(policy.name)
        add_adapters(tuned.model, 4)
        with torch.no_grad():
            for name, weight in tuned.model.named_parameters():
                if ".lora_" in name:
                    weight.copy_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(len(name))))
        expected, count = response_distribution(tuned, "c", LENGTH), 4000
        assert (expected - response_distribution(load_policy(policy.name), "c", LENGTH)).abs().sum() > 0.2
        error = (frequencies(sampler, tuned, Sampling(max_new_tokens=LENGTH), count) - expected).abs()
        assert (error < 5 * (expected * (1 - expected) / count).sqrt() + 2 / count).all()

    def test_a_prompt_too_long_for_the_engine_is_a_line(self, made: tuple[Policy, VLLMSampler]) -> None:
        policy, sampler = made
        ids = torch.zeros(1, 40, dtype=torch.long)  # the model has 16 places
        with pytest.raises(PPOError, match="--rollout vllm: vLLM cannot answer a batch"):
            sampler(policy, ids, ids == 0, sampling=Sampling(max_new_tokens=4), uniforms=dice(1, 4))

    def test_an_engine_that_is_not_the_policy_is_found_out(
        self, made: tuple[Policy, VLLMSampler], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        start, policy, sampler = load_policy(made[0].name), load_policy(made[0].name), made[1]
        monkeypatch.setattr(vllm_sampler, "merged_weights", lambda _: merged_weights(start.model))  # weights of before
        ids, mask = policy.read(["c"] * 8, room=4)
        sampling, uniforms = Sampling(max_new_tokens=4), dice(8, 4)
        sampler(policy, ids, mask, sampling=sampling, uniforms=uniforms)
        with torch.no_grad():
            policy.model.get_output_embeddings().weight.mul_(2)
        with pytest.raises(PPOError, match=r"--rollout vllm: vLLM's log-probabilities are .* nats a token from those"):
            sampler(policy, ids, mask, sampling=sampling, uniforms=uniforms)

    def test_a_run_learns(self, made: tuple[Policy, VLLMSampler]) -> None:
        policy, sampler = made
        config = PPOConfig(
            episodes=640, batch_size=64, minibatch_size=32, learning_rate=3e-3, missing_eos_penalty=0.0, kl_coef=0.01
        )
        trainer = Trainer(
            config, Sampling(max_new_tokens=6), load_policy(policy.name), count_a, ["a b", "c"],
            Fabric(accelerator="cpu", devices=1), sampler=sampler,
        )  # fmt: skip
        metrics = [trainer.step().metrics for _ in range(config.updates)]
        assert metrics[0]["kl"] == pytest.approx(0, abs=1e-5)
        assert metrics[0]["steps"] == 8
        assert metrics[-1]["score"] > metrics[0]["score"] + 1


def test_without_the_package_a_line_says_what_to_install() -> None:
    if HERE:
        pytest.skip("vllm is installed")
    assert complaint(["ppo", "run", "--rollout=vllm"]) == (
        "--rollout vllm needs the package vllm: pip install 'label-studio-rlhf[vllm]'"
    )
