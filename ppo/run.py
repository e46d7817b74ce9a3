"""A PPO run from names to a folder."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from lightning.fabric import Fabric

from lsplugin.files import atomic_folder, check_replaceable, write_json
from ppo.policy import load_policy
from ppo.reward import load_reward
from ppo.trainer import train
from rm_lightning.text import JOIN_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from lsplugin.preferences import Prompt
    from ppo.settings import PPOConfig, Sampling

MARKER = "metrics.jsonl"
"""The file that says a folder is an earlier run's, which may be replaced."""

SAMPLES = 32
"""Answers of every update that are kept for reading."""


def run(
    policy_name: str,
    reward_name: str,
    prompts: Sequence[Prompt],
    output: Path,
    *,
    config: PPOConfig,
    sampling: Sampling,
    accelerator: str = "auto",
    precision: str | None = None,
    on_update: Callable[[dict[str, float]], None] = lambda _: None,
) -> dict[str, float]:
    """Tune a policy and write its folder: model and tokenizer, metrics.jsonl, samples.jsonl, run.json.

    Args:
        policy_name: folder or hub name of a causal language model.
        reward_name: see `load_reward`.
        prompts: what to answer.
        output: the folder; made whole at the end, or not at all.
        config: settings of PPO.
        sampling: how answers are drawn.
        accelerator: of Lightning Fabric: auto, cpu, cuda.
        precision: of Lightning Fabric; bf16-mixed on a GPU and 32-true on a CPU when None.
        on_update: called with the metrics of every update.

    Returns:
        The last update's metrics.
    """
    check_replaceable(output, marker=MARKER)
    fabric = make_fabric(accelerator, precision)
    fabric.seed_everything(config.seed, verbose=False)
    policy = load_policy(policy_name)
    reward = load_reward(reward_name, device=fabric.device)
    metrics: dict[str, float] = {}
    with atomic_folder(output, marker=MARKER) as folder:
        with (folder / MARKER).open("w") as log, (folder / "samples.jsonl").open("w", encoding="utf-8") as samples:
            for update in train(config, sampling, policy, reward, prompts, fabric):
                metrics = update.metrics
                log.write(json.dumps(metrics) + "\n")
                for prompt, answer, score in list(
                    zip(update.prompts, update.answers, update.scores.tolist(), strict=True)
                )[:SAMPLES]:
                    row = {"update": metrics["update"], "prompt": prompt, "answer": answer, "score": score}
                    samples.write(json.dumps(row, ensure_ascii=False) + "\n")
                on_update(metrics)
        setattr(policy.model.config, JOIN_KEY, policy.encoder.join)
        policy.model.save_pretrained(folder)
        policy.tokenizer.save_pretrained(folder)
        settings: dict[str, Any] = {"policy": policy_name, "reward": reward_name, "prompts": len(prompts)}
        write_json(folder / "run.json", settings | asdict(config) | asdict(sampling))
    return metrics


def make_fabric(accelerator: str = "auto", precision: str | None = None) -> Fabric:
    """Choose device and precision: bf16 mixed on a GPU, float32 on a CPU, where bf16 is slower."""
    import torch

    on_gpu = accelerator in {"gpu", "cuda"} or (accelerator == "auto" and torch.cuda.is_available())
    chosen: Any = precision or ("bf16-mixed" if on_gpu else "32-true")
    fabric = Fabric(accelerator=accelerator, devices=1, precision=chosen)
    fabric.launch()
    return fabric
