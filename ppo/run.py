"""A PPO run from names to a folder."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from lightning.fabric.loggers.csv_logs import CSVLogger
from lightning.fabric.loggers.tensorboard import TensorBoardLogger

from lsplugin.errors import LspluginError
from lsplugin.files import atomic_folder, check_replaceable, write_json, write_jsonl
from ppo.actor import load_critic
from ppo.errors import Interrupted, PPOError
from ppo.inputs import cut_prompts, usable_prompts
from ppo.journal import FILES, METRICS, SAMPLES, TIMINGS, Journal, patience
from ppo.policy import load_policy
from ppo.processes import alone
from ppo.report import write_report
from ppo.reward import content_of, load_reward
from ppo.samplers import make_sampler
from ppo.settings import Keeping, Rollouts
from ppo.trainer import Trainer
from rm_lightning.adapters import export_model
from rm_lightning.scoring import model_digest
from rm_lightning.text import JOIN_KEY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from lightning.fabric import Fabric

    from lsplugin.preferences import Prompt
    from ppo.policy import Policy
    from ppo.settings import PPOConfig, Sampling
    from ppo.trainer import Update

MARKER = METRICS
"""The file that says a folder is an earlier run's, which may be replaced."""

KEPT = 32
"""Answers of every update that are kept for reading."""

VERSIONS = ("torch", "transformers", "lightning", "peft")


def run(
    policy_name: str,
    rewards: Sequence[str],
    prompts: Sequence[Prompt],
    output: Path,
    *,
    config: PPOConfig,
    sampling: Sampling,
    fabric: Fabric,
    aggregate: str = "mean",
    judges: Sequence[str] = (),
    value_model: str | None = None,
    rollouts: Rollouts | None = None,
    keeping: Keeping | None = None,
    on_update: Callable[[Update], None] = lambda _: None,
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Tune a policy and write its folder: model, tokenizer, {metrics,samples,timings}.jsonl, run.json, report.html.

    Killed at any moment and called again with the same settings, it goes on, and ends as if it had not been killed.

    Args:
        policy_name: folder or hub name of a causal language model.
        rewards: see `load_reward`.
        prompts: what to answer.
        output: the folder; made whole at the end, or not at all. Checkpoint, loggers' files and all else lie in `<output>-logs/`.
        config: settings of PPO.
        sampling: how answers are drawn.
        fabric: from `make_fabric`.
        aggregate: how several rewards become one.
        judges: rewards that the policy is not tuned on, to watch it with; see `ppo.guards`.
        value_model: where a network of its own for the values starts from; see `ppo.actor.load_critic`.
        rollouts: what samples the answers.
        keeping: what is kept and replaced.
        on_update: called after every update, in the first process.
        tell: called with what a person should hear of, in the first process.

    Returns:
        What is in run.json: settings, versions, and how it ended.

    Raises:
        PPOError: what was given cannot be used, another run's result is in the output, or the run diverged.
        Interrupted: by Ctrl-C.
    """
    keeping, rollouts = keeping or Keeping(), rollouts or Rollouts()
    first = fabric.is_global_zero
    say = tell if first else lambda _: None
    check_replaceable(output, marker=MARKER)
    fabric.seed_everything(config.seed, verbose=False)
    policy = load_policy(policy_name)
    given = prompts
    prompts, dropped = usable_prompts(policy, given)
    for reason, count in dropped.items():
        say(f"{count} of {len(given)} prompts left out: {reason}")
    cut = cut_prompts(policy, prompts, sampling.max_new_tokens)
    if cut:
        say(f"{cut} of {len(prompts)} prompts are cut from the left, so that the answer fits into the model's context")
    reward = load_reward(rewards, aggregate=aggregate, device=fabric.device)
    judge = load_reward(judges, device=fabric.device) if judges else None
    critic = load_critic(value_model, policy) if value_model is not None else None
    settings: dict[str, Any] = {
        "policy": policy_name,
        "reward": list(rewards),
        "reward_aggregate": aggregate,
        "judge": list(judges),
        "value_model": value_model,
    }
    settings |= {
        "prompts": len(prompts),
        **asdict(config),
        **asdict(sampling),
        "rollout": rollouts.rollout,
        "precision": str(fabric._precision.precision),  # noqa: SLF001 - it is nowhere else
    }
    settings["content"] = _contents(policy_name, rewards, judges, prompts)
    if value_model is not None:
        settings["content"]["value_model"] = model_digest(value_model)
    trainer = Trainer(
        config, sampling, policy, reward, prompts, fabric, judge=judge, critic=critic,
        sampler=make_sampler(rollouts, policy, fabric),
    )  # fmt: skip
    journal = Journal(output, settings)
    with alone(journal.folder / "lock", fabric):
        _tune(trainer, journal, output, keeping, on_update, say)
        told = settings | {"versions": {name: version(name) for name in VERSIONS}}
        told |= {"exported_after": trainer.choose(), "updates": trainer.update, "ended": trainer.ended}
        if first:
            _export(trainer.policy, journal, output, told)
            journal.end()
    return told


def _tune(
    trainer: Trainer,
    journal: Journal,
    output: Path,
    keeping: Keeping,
    on_update: Callable[[Update], None],
    say: Callable[[str], None],
) -> None:
    """Begin, or go on where the same run was interrupted, up to its end."""
    fabric = trainer.fabric
    first = fabric.is_global_zero
    going_on: bool = fabric.broadcast(journal.interrupted() and not keeping.fresh)
    if not going_on and not keeping.overwrite and (output / MARKER).is_file():
        raise PPOError(
            f"{output}: another run's result is there; name another --output, or replace it with --overwrite"
        )
    if going_on:
        say(
            f"an interrupted run with these settings is there: going on from {journal.checkpoint} (--fresh begins anew)"
        )
        saved = journal.load()
        trainer.load_state_dict(saved["state"])
    if first and going_on:
        journal.cut(saved["sizes"])
    elif first:
        journal.begin()
    loggers = _loggers(journal.folder, keeping.wandb) if first else []
    status = "aborted"
    try:
        with patience(say) as pressed:
            _loop(trainer, journal, loggers, keeping, pressed, on_update, say)
        status = "success"
    finally:
        for logger in loggers:
            logger.finalize(status)


def _export(policy: Policy, journal: Journal, output: Path, told: dict[str, Any]) -> None:
    """Write the folder of the finished run, whole or not at all."""
    with atomic_folder(output, marker=MARKER) as folder:
        for name in FILES:
            shutil.copyfile(journal.folder / name, folder / name)
        setattr(policy.model.config, JOIN_KEY, policy.encoder.join)
        export_model(policy.model, folder, adapter=False)
        policy.tokenizer.save_pretrained(folder)
        write_json(folder / "run.json", told)
        write_report(folder, title=f"PPO: {output.name}")


def _loop(
    trainer: Trainer,
    journal: Journal,
    loggers: list[Any],
    keeping: Keeping,
    pressed: Callable[[], bool],
    on_update: Callable[[Update], None],
    say: Callable[[str], None],
) -> None:
    """Take the steps that are left, each of them logged, and every so many kept."""
    first = trainer.fabric.is_global_zero
    done = trainer.update == trainer.config.updates or trainer.ended is not None
    while not done:
        update = _step(trainer, journal)
        done = trainer.update == trainer.config.updates or trainer.ended is not None
        stop: bool = trainer.fabric.broadcast(pressed()) and not done
        if first:
            timings = _write(journal, update)
            for logger in loggers:
                logger.log_metrics(update.metrics | timings, step=trainer.update)
            if update.warning:
                say(f"warning: {update.warning}")
            on_update(update)
            if done or stop or trainer.update % keeping.save_every == 0:
                journal.save(trainer.state_dict())
        if stop:
            raise Interrupted(f"interrupted; the same command goes on from {journal.checkpoint}")


def _step(trainer: Trainer, journal: Journal) -> Update:
    """Take a step; where it fails, keep the batch for reading and say where."""
    try:
        return trainer.step()
    except LspluginError as error:
        if not trainer.batch:
            raise
        path = journal.folder / "failed_batch.jsonl"
        columns = trainer.batch
        names = list(columns)
        write_jsonl(path, (dict(zip(names, row, strict=True)) for row in zip(*columns.values(), strict=True)))
        raise PPOError(f"{error}; the batch is in {path}") from None


def _write(journal: Journal, update: Update) -> dict[str, float]:
    """Write an update's lines; gives its timings."""
    number = update.metrics["update"]
    timings = {**update.seconds, "episodes_per_second": len(update.answers) / sum(update.seconds.values())}
    journal.add(METRICS, [update.metrics])
    journal.add(SAMPLES, ({"update": number} | row for row in list(rows_of(update))[:KEPT]))
    journal.add(TIMINGS, [{"update": number} | timings])
    return timings


def rows_of(update: Update) -> Iterator[dict[str, Any]]:
    """Give an update's answers, each with its prompt and scores."""
    judged = [None] * len(update.answers) if update.judged is None else update.judged.tolist()
    columns = zip(update.prompts, update.answers, update.scores.tolist(), judged, strict=True)
    for prompt, answer, score, judge in columns:
        yield {"prompt": prompt, "answer": answer, "score": score} | ({} if judge is None else {"judge": judge})


def _contents(policy: str, rewards: Sequence[str], judges: Sequence[str], prompts: Sequence[Prompt]) -> dict[str, Any]:
    """Give digests of all that a run is made of."""
    of_rewards, of_judges = [content_of(name) for name in rewards], [content_of(name) for name in judges]
    for name, content in zip(judges, of_judges, strict=True):
        if content in of_rewards:
            raise PPOError(
                f"--judge {name}: it is the same as --reward {rewards[of_rewards.index(content)]}, so it would see nothing "
                "that the policy is not tuned on; name one that was held back"
            )
    text = json.dumps(list(prompts), ensure_ascii=False).encode(errors="surrogatepass")
    digest = hashlib.blake2b(text, digest_size=16).hexdigest()
    return {"policy": model_digest(policy), "reward": of_rewards, "judge": of_judges, "prompts": digest}


def _loggers(folder: Path, project: str | None) -> list[Any]:
    """TensorBoard and CSV in the folder of logs; Weights & Biases beside them where a project is named."""
    found: list[Any] = [
        CSVLogger(folder, name="csv", flush_logs_every_n_steps=1),
        TensorBoardLogger(folder, name="tensorboard"),
    ]
    if project is not None:
        from lightning.pytorch.loggers import WandbLogger

        found.append(WandbLogger(project=project, save_dir=folder))
    return found
