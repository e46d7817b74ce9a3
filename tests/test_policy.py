"""A policy's numbers are those of plain transformers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lsplugin.errors import LspluginError
from ppo.actor import ActorCritic, reference_logprobs
from ppo.errors import PPOError
from ppo.policy import load_policy
from ppo.reward import load_reward
from tests.worlds import word_policy

if TYPE_CHECKING:
    from pathlib import Path


@torch.no_grad()
def test_logprobs_are_those_of_the_plain_model(tmp_path: Path) -> None:
    policy = word_policy(tmp_path)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    prompts, answers = ["a b c", "d"], [[0, 1, 2], [3, 4, 5]]
    input_ids, mask = policy.read(prompts, room=4)
    whole_ids = torch.cat([input_ids, torch.tensor(answers)], dim=1)
    whole_mask = torch.cat([mask, torch.ones(2, 3, dtype=torch.bool)], dim=1)
    ours = ActorCritic(policy.model)(whole_ids, whole_mask, 3, 0.7)
    for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
        ids = torch.tensor([policy.encoder.prompt(prompt) + answer])
        logprobs = (plain(ids).logits / 0.7).log_softmax(-1)[0, -4:-1]
        expected = logprobs[torch.arange(3), torch.tensor(answer)]
        assert torch.allclose(ours.logprobs[row], expected, atol=1e-5)
        assert torch.allclose(ours.entropy[row], -(logprobs.exp() * logprobs).sum(-1), atol=1e-5)
    assert (ours.values == 0).all()  # the value head starts at zero
    assert torch.allclose(ours.logprobs, reference_logprobs(policy.model, whole_ids, whole_mask, 3, 0.7), atol=1e-6)


def test_the_value_head_trains_the_trunk_it_shares(tmp_path: Path) -> None:
    policy = word_policy(tmp_path)
    actor = ActorCritic(policy.model)
    torch.nn.init.ones_(actor.value_head.weight)
    input_ids, mask = policy.read(["a b c"], room=4)
    actor(input_ids, mask, 2).values.sum().backward()
    trunk = policy.model.transformer.h[0].mlp.c_fc.weight.grad  # type: ignore[union-attr, index]
    assert trunk is not None
    assert trunk.abs().max() > 0


def test_long_prompts_are_cut_from_the_left(tmp_path: Path) -> None:
    policy = word_policy(tmp_path)  # reads 16 tokens
    input_ids, mask = policy.read(["a " * 30 + "b c", "d"], room=10)
    assert input_ids.shape == (2, 6)
    assert input_ids[0].tolist() == [0, 0, 0, 0, 1, 2]
    assert mask[1].tolist() == [False] * 5 + [True]


def test_an_answer_that_leaves_no_room_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PPOError, match="--max-new-tokens 16 leaves no room"):
        word_policy(tmp_path).read(["a"], room=16)


def test_unknown_model_is_one_line() -> None:
    with pytest.raises(LspluginError, match="no-such-folder: no such model") as caught:
        load_policy("no-such-folder")
    assert "\n" not in str(caught.value)


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(LspluginError, match=r"no config\.json"):
        load_policy(str(tmp_path))


def test_eos_ids_come_from_the_generation_config(tmp_path: Path) -> None:
    policy = word_policy(tmp_path)
    policy.model.generation_config.eos_token_id = [5, 4]  # type: ignore[union-attr]
    policy.model.save_pretrained(tmp_path)
    assert load_policy(str(tmp_path)).eos_token_ids == (5, 4)


def test_a_python_function_is_a_reward(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_rewards.py").write_text(
        "def length(prompts, answers):\n    return [len(p) + len(a) for p, a in zip(prompts, answers)]\n"
        "def short(prompts, answers):\n    return [1.0]\n"
        "def broken(prompts, answers):\n    return [float('nan')] * len(answers)\n"
    )
    monkeypatch.chdir(tmp_path)
    assert load_reward("my_rewards:length")(["ab", "c"], ["x", "yyy"]).tolist() == [3.0, 4.0]
    with pytest.raises(PPOError, match="expected 2 numbers"):
        load_reward("my_rewards:short")(["a", "b"], ["x", "y"])
    with pytest.raises(PPOError, match="finite numbers, got nan for the answer 'x'"):
        load_reward("my_rewards:broken")(["a"], ["x"])
    with pytest.raises(PPOError, match="no function nothing"):
        load_reward("my_rewards:nothing")
    with pytest.raises(PPOError, match="no module no_such_module"):
        load_reward("no_such_module:f")


def test_tokenizer_is_the_one_of_the_folder(tmp_path: Path) -> None:
    policy = word_policy(tmp_path)
    assert policy.tokenizer.get_vocab() == AutoTokenizer.from_pretrained(tmp_path).get_vocab()
