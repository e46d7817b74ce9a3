"""What can take the decode loop's place: the same loop with one size, compiled or not."""

from __future__ import annotations

import shutil
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
import torch
from lightning.fabric import Fabric
from transformers import MistralConfig, MistralForCausalLM

from ppo.errors import PPOError
from ppo.policy import load_policy
from ppo.samplers import REDUCED, StaticSampler, make_sampler
from ppo.sampling import sample
from ppo.settings import PPOConfig, Rollouts, Sampling
from ppo.trainer import Trainer
from tests.helpers import complaint
from tests.test_sampling import dice
from tests.worlds import word_policy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lsplugin.preferences import Prompt

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script_method` is deprecated:DeprecationWarning"
)  # torch's own

PROMPTS = ["c", "d e", "c", "a b c d e", "c", "d e", "b b"]

EAGER: Callable[[Any], Any] = partial(torch.compile, backend="eager", dynamic=False)
"""Traced as for a GPU, and run as it stands."""


def count_a(prompts: Sequence[Prompt], answers: Sequence[str]) -> torch.Tensor:
    """Score how many a's an answer has."""
    assert len(prompts) == len(answers)
    return torch.tensor([float(answer.split().count("a")) for answer in answers])


def same(sampler: StaticSampler, folder: Path, device: str = "cpu") -> None:
    """Compare answers with those of the decode loop, over several batches and after the weights have moved."""
    policy = word_policy(folder)
    policy.model.to(device)  # type: ignore[arg-type]
    for number, sampling in enumerate(
        [Sampling(max_new_tokens=8), Sampling(max_new_tokens=8, temperature=0.7, top_k=4, top_p=0.9)]
    ):
        for prompts in (PROMPTS, PROMPTS[::-1]):
            ids, mask = (part.to(device) for part in policy.read(prompts, room=8))
            numbers = dice(len(prompts), 8, seed=number).to(device)
            ours, theirs = (loop(policy, ids, mask, sampling=sampling, uniforms=numbers) for loop in (sampler, sample))
            assert torch.equal(ours[0], theirs[0])
            assert torch.equal(ours[1], theirs[1])
            assert len(set(ours[1].sum(1).tolist())) > 1  # some end early
        with torch.no_grad():
            for weight in policy.model.parameters():
                weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)).to(device))


@pytest.mark.parametrize("compiled", [lambda step: step, EAGER], ids=["as it stands", "traced"])
def test_one_size_gives_the_answers_of_the_decode_loop(compiled: Callable[[Any], Any], tmp_path: Path) -> None:
    same(StaticSampler(compiled), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(shutil.which("g++") is None, reason="compiling for a CPU takes a C++ compiler")
def test_compiled_steps_give_the_answers_of_the_decode_loop(tmp_path: Path) -> None:
    same(StaticSampler(REDUCED), tmp_path)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.filterwarnings("ignore")
def test_graphs_on_a_gpu_give_the_answers_of_the_decode_loop(tmp_path: Path) -> None:
    same(StaticSampler(REDUCED), tmp_path, device="cuda")


def test_a_run_learns_the_same_from_either(tmp_path: Path) -> None:
    config = PPOConfig(episodes=96, batch_size=32, minibatch_size=16, learning_rate=1e-2, missing_eos_penalty=0.5)
    metrics = []
    for sampler in (sample, StaticSampler(EAGER)):
        trainer = Trainer(
            config, Sampling(max_new_tokens=6), word_policy(tmp_path), count_a, ["a b", "c"],
            Fabric(accelerator="cpu", devices=1), sampler=sampler,
        )  # fmt: skip
        torch.manual_seed(0)
        metrics.append([trainer.step().metrics for _ in range(3)])
    for ours, theirs in zip(*metrics, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-5)
    assert metrics[0][-1]["score"] > metrics[0][0]["score"]


@pytest.mark.data
def test_a_real_model_gives_the_answers_of_the_decode_loop(real_data: Path) -> None:
    policy = load_policy(str(real_data / "models" / "stories260k-hf"))
    ids, mask = policy.read(["Once upon a time", "Lily was a girl who", "Once upon a time"], room=40)
    ours, theirs = (
        loop(policy, ids, mask, sampling=Sampling(max_new_tokens=40), uniforms=dice(3, 40))
        for loop in (StaticSampler(EAGER), sample)
    )
    assert torch.equal(ours[0], theirs[0])
    assert ours[1].all()


def test_layers_that_see_a_window_are_refused(tmp_path: Path) -> None:
    policy = word_policy(tmp_path)
    config = MistralConfig(
        vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, sliding_window=4, max_position_embeddings=32,
    )  # fmt: skip
    narrow = policy._replace(model=MistralForCausalLM(config).eval())
    ids, mask = policy.read(PROMPTS, room=8)
    with pytest.raises(PPOError, match="--rollout static: expected a model whose layers all see the whole text"):
        StaticSampler(EAGER)(narrow, ids, mask, sampling=Sampling(max_new_tokens=8), uniforms=dice(7, 8))


@pytest.mark.filterwarnings("ignore")
def test_a_machine_without_a_compiler_is_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setattr(config.cpp, "cxx", ("no-such-compiler",))
    monkeypatch.setattr(config, "force_disable_caches", True)
    policy = word_policy(tmp_path)
    ids, mask = policy.read(PROMPTS, room=8)
    with pytest.raises(PPOError, match=r"--rollout static: a step cannot be compiled here \(.*compiler"):
        StaticSampler(REDUCED)(policy, ids, mask, sampling=Sampling(max_new_tokens=8), uniforms=dice(7, 8))


def test_the_settings_choose(tmp_path: Path) -> None:
    policy, fabric = word_policy(tmp_path), Fabric(accelerator="cpu", devices=1)
    assert make_sampler(Rollouts(), policy, fabric) is sample
    assert isinstance(make_sampler(Rollouts(rollout="static"), policy, fabric), StaticSampler)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("--rollout=vlm", "--rollout vlm: expected one of own, static, vllm"),
        ("--vllm-memory=1", "--vllm-memory 1.0: expected a share above 0 and below 1"),
    ],
)
def test_what_cannot_sample_is_a_line(option: str, said: str) -> None:
    assert said in complaint(["ppo", "run", option])
