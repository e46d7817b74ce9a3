"""The steps of a round: which command reads what and writes what. All paths are relative to the folder of the rounds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rounds.settings import Started

CONFIG, TUNING, JUDGING, HELD_OUT = (
    "config.xml",
    "prompts/tuning.jsonl",
    "prompts/judging.jsonl",
    "prompts/held_out.jsonl",
)

ASKS, WAITS = "create", "pull"
"""The step that puts tasks before people, and the one that waits for their labels."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        round: from 1.
        name: of the step, once in its round.
        says: what it does, for people.
        command: module of this project, and its arguments.
        reads: files and folders.
        writes: files and folders.
        seed: of what it draws.
        stdout: the file that keeps what it prints; one of `writes`.
    """

    round: int
    name: str
    says: str
    command: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    seed: int | None = None
    stdout: str | None = None

    @property
    def typed(self) -> list[str]:
        """The command as a person types it."""
        module, *rest = self.command
        return [module, *rest] if module == "lsplugin" else ["python", "-m", module, *rest]


def folder_of(number: int) -> str:
    """Name the folder of a round."""
    return f"round-{number}"


def steps(settings: Started) -> list[Step]:
    """Give all steps of all rounds, in order."""
    return [step for number in range(1, settings.rounds + 1) for step in _round(settings, number)]


def _round(settings: Started, number: int) -> Iterator[Step]:
    """Give the steps of a round: ask, hear, learn."""
    yield from _ask(settings, number)
    yield from _hear(settings, number)
    yield from _learn(settings, number)


def _ask(own: Started, number: int) -> Iterator[Step]:
    """Answers to prompts, some of which become tasks."""
    here, seed = folder_of(number), own.seed + number
    before = [folder_of(earlier) for earlier in range(1, number)]
    pool = own.pool if before else 1
    prompts, tasks, scores = f"{here}/prompts.jsonl", f"{here}/tasks.json", f"{here}/scores.jsonl"
    parts = ("--judge-share", str(own.judge_share))
    yield Step(
        number, "draw", "prompts to answer are drawn",
        ("rounds", "draw", TUNING, JUDGING, "--labels", str(own.labels), *parts, "--pool", str(pool),
         "--seed", str(seed), "-o", prompts),
        (TUNING, JUDGING), (prompts,), seed,
    )  # fmt: skip
    sources = {"start": own.policy} | ({"tuned": f"{before[-1]}/policy"} if before else {})
    answers = {name: f"{here}/{name}.json" for name in sources}
    for name, policy in sources.items():
        yield Step(
            number, f"generate {name}", f"the {name} policy answers them" if before else "the start answers them",
            ("ppo", "generate", "--policy", policy, "--prompts", prompts, "--answers", str(own.answers), "--seed", str(seed),
             "-o", answers[name], *own.more("generate")),
            (policy, prompts), (answers[name],), seed,
        )  # fmt: skip
    scored: tuple[str, ...] = ()
    if before:
        scored = (scores,)
        reward = f"{before[-1]}/rm"
        yield Step(
            number, "score", "the reward model scores the answers",
            ("rm_lightning", "score", "--model", reward, *answers.values(), "-o", scores),
            (reward, *answers.values()), scored,
        )  # fmt: skip
    shares = ("--uncertain", str(own.uncertain), "--diverse", str(own.diverse), "--again", str(own.again))
    asked = [f"{earlier}/tasks.json" for earlier in before]
    yield Step(
        number, "choose", "what people compare is chosen",
        ("rounds", "choose", *answers.values(), *(("--scores", scores, *shares) if before else ()),
         *(part for path in asked for part in ("--asked", path)), "--judging", JUDGING, "--labels", str(own.labels), *parts,
         "--answers", str(own.answers), "--seed", str(seed), "-o", tasks),
        (*answers.values(), *scored, *asked, JUDGING), (tasks,), seed,
    )  # fmt: skip
    project = f"{here}/project.txt"
    yield Step(
        number, ASKS, "the tasks become a project",
        ("lsplugin", "create", own.project(number), "--config", CONFIG, "--tasks", tasks,
         "--annotators-per-task", str(own.annotators_per_task), "--seed", str(seed), *own.more("create")),
        (CONFIG, tasks), (project,), seed, stdout=project,
    )  # fmt: skip


def _hear(own: Started, number: int) -> Iterator[Step]:
    """Labels become pairs, for the reward model and for the judge."""
    here = folder_of(number)
    export, config, pairs = f"{here}/export.json", f"{here}/export.config.xml", f"{here}/pairs.jsonl"
    yield Step(
        number, WAITS, "the labels are read",
        ("lsplugin", "pull", own.project(number), "-o", export),
        (f"{here}/tasks.json", f"{here}/project.txt"), (export, config),
    )  # fmt: skip
    counts = f"{here}/pairs-counts.json"
    yield Step(
        number, "pairs", "labels become pairs",
        ("lsplugin", "pairs", export, "-o", pairs, "--counts", counts, *own.more("pairs")),
        (export, config), (pairs, counts),
    )  # fmt: skip
    yield Step(
        number, "report", "how far people agree",
        ("lsplugin", "report", export, "-o", f"{here}/labels.html", "--title", f"Labels of round {number}"),
        (export, config), (f"{here}/labels.html", f"{here}/labels.json"),
    )  # fmt: skip
    heard = [f"{folder_of(one)}/pairs.jsonl" for one in range(1, number + 1)]
    reward, judge = f"{here}/reward.jsonl", f"{here}/judge.jsonl"
    yield Step(
        number, "gather", "pairs of all rounds, the judge's apart",
        ("rounds", "gather", *heard, "--judging", JUDGING, "-o", reward, "--judge", judge),
        (*heard, JUDGING), (reward, judge),
    )  # fmt: skip


def _learn(own: Started, number: int) -> Iterator[Step]:
    """Reward model and judge, each from its own prompts; then the policy, and whether it got better."""
    here, seed = folder_of(number), own.seed + number
    reward, judge, policy, evaluation = f"{here}/rm", f"{here}/judge", f"{here}/policy", f"{here}/evaluation.json"
    for name, pairs, output, members, own_seed in (
        ("fit reward", f"{here}/reward.jsonl", reward, own.members, seed),
        ("fit judge", f"{here}/judge.jsonl", judge, 1, seed + 1000),
    ):
        yield Step(
            number, name, "a reward model learns from all rounds" if output == reward else "the judge learns, from other prompts",
            ("rm_lightning", "fit", "--data.pairs", pairs, "--model.backbone", own.policy, "--model.members", str(members),
             "--ceiling", f"{here}/labels.json", "--seed_everything", str(own_seed), "--data.seed", str(own_seed),
             "--output", output, *own.more("fit")),
            (pairs, own.policy, f"{here}/labels.json"), (output,), own_seed,
        )  # fmt: skip
    yield Step(
        number, "tune", "PPO tunes the start anew",
        ("ppo", "run", "--policy", own.policy, "--reward", reward, "--prompts", TUNING, "--output", policy,
         "--seed", str(seed), "--overwrite", *own.more("tune")),
        (own.policy, reward, TUNING), (policy,), seed,
    )  # fmt: skip
    yield Step(
        number, "evaluate", "tuned against the start, by the judge",
        ("ppo", "evaluate", "--policy", policy, "--base", own.policy, "--prompts", HELD_OUT, "--reward", reward, "--judge", judge,
         "--seed", str(own.seed), "-o", evaluation, *own.more("evaluate")),
        (policy, own.policy, HELD_OUT, reward, judge), (evaluation, f"{here}/evaluation.png"), own.seed,
    )  # fmt: skip
