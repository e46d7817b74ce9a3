"""What more labels bring: the curve, its intervals, the parts that fits are trained on, and the command."""

from __future__ import annotations

import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from matplotlib import image

from lsplugin.preferences import Pair, write_pairs
from rm_lightning.__main__ import main
from rm_lightning.curve import Curves, Fit, Measured, forecast, formula, learn, measure, stops_paying
from rm_lightning.forecast import said, teaches_most
from rm_lightning.subsets import BASE, kinds_of, leave_out, steps
from tests import fits

ONE = np.ones(1)


def simulated(
    rng: np.random.Generator, sizes: list[int], accuracies: list[float], *, prompts: int, scatter: float = 0.01
) -> list[Fit]:
    """Fits in five folds whose true accuracies are known: prompts are easy or hard for all sizes alike, fits scatter."""
    hardness = rng.random(prompts)
    found = []
    for step, (size, accuracy) in enumerate(zip(sizes, accuracies, strict=True)):
        for fold in range(5):
            mine = np.arange(fold, prompts, 5)
            luck = 0.5 * hardness[mine] + 0.5 * rng.random(len(mine))
            # the sum of two uniforms has this distribution function below and above one half
            threshold = accuracy + rng.normal(0, scatter)
            level = np.sqrt(threshold / 2) if threshold < 0.5 else 1 - np.sqrt((1 - threshold) / 2)
            found.append(Fit(fold, step, size, mine.tolist(), (luck < level).astype(float).tolist()))
    return found


# the curve


def test_the_formula_starts_at_a_coin_and_ends_as_a_power_law() -> None:
    at = [float(formula(np.array([n]), 0.8 * ONE, 200 * ONE, 0.7 * ONE)[0]) for n in (1e-9, 200, 1e7)]
    assert at[0] == pytest.approx(0.5, abs=1e-6)
    assert at[1] == pytest.approx(0.65)  # half of the way
    assert at[2] == pytest.approx(0.8 - 0.3 * (200 / 1e7) ** 0.7, abs=1e-6)  # ceiling - a n^-b


def test_accuracies_and_their_covariance_by_hand() -> None:
    """Four prompts of one comparison each, in two folds, at two sizes."""
    made = [
        Fit(0, 0, 10, [1, 2], [1, 0]), Fit(1, 0, 12, [3, 4], [1, 0]),
        Fit(0, 1, 20, [1, 2], [1, 1]), Fit(1, 1, 24, [3, 4], [1, 0]),
    ]  # fmt: skip
    found = measure(made)
    assert found.labels.tolist() == [11, 22]
    assert found.accuracy.tolist() == [0.5, 0.75]
    # deviations / 4: (1, -1, 1, -1) / 8 and (1, 1, 1, -3) / 16; times G / (G - 3) = 4
    assert found.covariance[0, 1] == pytest.approx(4 * (1 - 1 + 1 + 3) / 128)
    assert found.covariance[0, 0] == pytest.approx(4 * 4 / 64 + found.scatter**2 / 2)


def test_a_known_curve_is_recovered() -> None:
    sizes = np.array([50.0, 100, 200, 400, 800])
    true = formula(sizes, 0.8 * ONE, 150 * ONE, ONE)
    curves = learn(Measured(sizes, true, np.eye(5) * 1e-6, 0.0))
    told = forecast(curves, 0.0, 800, 800)
    expected = 0.5 + 0.3 * 1600 / 1750
    assert told.then.value == pytest.approx(expected, abs=0.01)
    assert told.then.low < expected < told.then.high
    assert (
        told.then.high - told.then.low < 0.06
    )  # twice 1.96 times the 1% that a curve wanders while labels double, and a little


def test_intervals_hold_for_curves_of_another_form_and_are_not_wide_for_nothing() -> None:
    """Truth: c - a n^-b, 60 data sets of 1,000 prompts; the forecast sees up to 800 labels and says what 2,000 give."""
    rng = np.random.default_rng(0)
    sizes = [50, 100, 200, 400, 800]
    held, widths, gains = 0, [], 0
    for _ in range(60):
        ceiling, b = rng.uniform(0.65, 0.9), rng.uniform(0.3, 1.0)
        a = (ceiling - 0.5) * 20**b  # a coin at 20 labels

        def true(n: float, c: float = ceiling, a: float = a, b: float = b) -> float:
            return float(c - a * n**-b)

        made = measure(simulated(rng, sizes, [true(n) for n in sizes], prompts=1000))
        told = forecast(learn(made, draws=1000), made.scatter, 1000, 1000)
        held += told.then.low <= true(2000) <= told.then.high
        gains += told.gain.low <= true(2000) - true(1000) <= told.gain.high
        widths.append(told.then.high - told.then.low)
    assert held >= 0.9 * 60
    assert gains >= 0.9 * 60
    assert np.mean(widths) < 0.14  # a test of 1,000 alone is 0.06 wide, a single fit's scatter as much


def test_more_labels_narrow_the_interval() -> None:
    rng = np.random.default_rng(1)
    wide, narrow = (
        forecast(
            learn(m := measure(simulated(rng, [50, 100, 200], [0.6, 0.63, 0.66], prompts=p))), m.scatter, 250, 100
        ).then
        for p in (100, 3000)
    )
    assert narrow.high - narrow.low < 0.7 * (wide.high - wide.low)


def test_when_labels_stop_paying() -> None:
    flat = Curves(0.7 * np.ones(500), 5 * np.ones(500), 2 * np.ones(500), anchor=1000.0)
    steep = Curves(0.95 * np.ones(500), 5000 * np.ones(500), np.ones(500), anchor=1000.0)
    assert stops_paying(flat, 1000, 100, 0.01) == 1000
    found = stops_paying(steep, 1000, 1000, 0.02)
    assert found is not None
    # derivative 0.45 h / (h + n)^2 times 1,000 is 0.02 at n = 5,600; being 90% sure with a curve that wanders takes more
    assert 5600 < found < 40000
    assert stops_paying(steep, 1000, 5000, 0.0001) is None


# the parts


KEYS = np.repeat(np.arange(60), 2)


def test_steps_are_nested_whole_prompts_tested_on_the_same_held_out_ones() -> None:
    jobs = steps(KEYS, np.ones(120, dtype=np.int64), 4, seed=3)
    tested = []
    for fold in range(4):
        mine = sorted((job for job in jobs if job.fold == fold), key=lambda job: job.step or 0)
        assert [job.step for job in mine] == [0, 1, 2]  # 90 to train on: 22, 44, 90; an eighth is less than 16
        assert [len(job.train) for job in mine] == [22, 44, 90]
        for small, large in pairwise(mine):
            assert set(small.train) < set(large.train)
            assert small.test.tolist() == large.test.tolist()
        for job in mine:
            assert not set(KEYS[job.train]) & set(KEYS[job.test])
            assert all(np.isin(KEYS, KEYS[job.train]).nonzero()[0] == job.train)  # prompts are whole
        tested += mine[0].test.tolist()
    assert sorted(tested) == list(range(120))  # each held out once
    assert [len(job.train) for job in jobs] == sorted(len(job.train) for job in jobs)
    again = steps(KEYS, np.ones(120, dtype=np.int64), 4, seed=3)
    assert all(one.train.tolist() == other.train.tolist() for one, other in zip(jobs, again, strict=True))


def test_a_kind_is_left_out_at_equally_many_comparisons() -> None:
    kind = np.arange(120) % 3 == 0
    jobs = leave_out(KEYS, {"third": kind}, 4, seed=0)
    assert {len(job.train) for job in jobs} == {min(len(job.train) for job in jobs)}
    for job in jobs:
        assert job.kind in {BASE, "third"}
        assert bool(kind[job.train].any()) == (job.kind == BASE)
        assert not set(KEYS[job.train]) & set(KEYS[job.test])


def test_kinds_come_from_what_pairs_tell() -> None:
    pairs = [
        Pair(
            f"p{n}", "a" * (5 if n % 2 else 50), "b" * 5, margin=float(n % 4), probability=0.6 + 0.1 * (n % 3),
            meta={"task": n, "annotator": str(n % 2), "models": {"chosen": "xy"[n % 2], "rejected": "x"},
                  "task_meta": {"source": ["web", "book", "rare"][(n % 2) if n else 2]}, "strength": None},
        )
        for n in range(120)
    ]  # fmt: skip
    found = kinds_of(pairs)
    assert set(found) == {  # the eight largest; "agreed on" is a third
        "answers about as long", "answers of unlike length", "slightly better", "much better",
        "models x against x", "models x against y", "source web", "source book",
    }  # fmt: skip
    assert found["answers of unlike length"].tolist() == [n % 2 == 0 for n in range(120)]
    assert found["much better"].tolist() == [n % 4 > 1 for n in range(120)]


def test_no_difference_is_said_where_none_is_seen() -> None:
    rows = [
        {"kind": kind, "cost": {"value": v, "low": v - 0.02, "high": v + 0.02}}
        for kind, v in (("a", 0.03), ("b", 0.01))
    ]
    assert teaches_most(rows) == "teaches most: a (left out, accuracy falls by 3.0 (1.0 to 5.0))"
    assert "no difference seen" in teaches_most(rows[1:])


# the command


@pytest.fixture(scope="module")
def pairs_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("forecast") / "pairs.jsonl"
    write_pairs(path, fits.days(96))
    return path


def arguments(pairs: Path, backbone: Path, output: Path, *more: str) -> list[str]:
    return [
        "forecast", f"--pairs={pairs}", f"--model.backbone={backbone}", f"--output={output}", "--folds=3",
        f"--data.cache={pairs.parent / 'cache'}", "--data.batch_size=8", "--model.learning_rate=3e-3",
        "--trainer.accelerator=cpu", "--trainer.max_epochs=1", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def forecasted(pairs_file: Path, tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("out") / "forecast"
    main(arguments(pairs_file, tiny_causal, output, "--more=50"))
    return output


def test_the_command_says_writes_and_draws(forecasted: Path) -> None:
    told = json.loads((forecasted / "forecast.json").read_text())
    assert re.match(r"50 more comparisons: accuracy [\d.]+ -> [\d.]+ \([\d.]+-[\d.]+\), gain ", told["said"])
    assert told["said"] == said(told)
    assert told["labels"] == 96
    assert [point["labels"] for point in told["measured"]] == [16, 32, 64]
    assert told["now"]["low"] < told["now"]["value"] < told["now"]["high"]
    assert {row["kind"] for row in told["kinds"]["rows"]} <= {"answers about as long", "answers of unlike length"}
    assert image.imread(forecasted / "forecast.png").shape[0] > 300
    assert (forecasted / "forecast.svg").read_text().startswith("<?xml")
    page = (forecasted / "report.html").read_text()
    assert f"{100 * told['then']['value']:.1f}% ({100 * told['then']['low']:.1f} to" in page
    assert "http://" not in page
    assert "https://" not in page


def test_the_same_command_runs_only_the_fits_that_are_missing(
    forecasted: Path, pairs_file: Path, tiny_causal: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = json.loads((forecasted / "forecast.json").read_text())
    times = {file.name: file.stat().st_mtime_ns for file in (forecasted / "fits").iterdir()}
    (forecasted / "fits" / "step1-fold2.json").unlink()
    (forecasted / "forecast.json").unlink()
    capsys.readouterr()
    main(arguments(pairs_file, tiny_causal, forecasted, "--more=50"))
    out, err = capsys.readouterr()
    assert "of them in fits that are there already" in err
    assert out == before["said"] + "\n"
    assert json.loads((forecasted / "forecast.json").read_text()) == before
    after = {file.name: file.stat().st_mtime_ns for file in (forecasted / "fits").iterdir()}
    assert [name for name in times if after[name] != times[name]] == ["step1-fold2.json"]


def test_another_question_needs_no_new_fit_and_other_settings_do(
    forecasted: Path, pairs_file: Path, tiny_causal: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "forecast"
    shutil.copytree(forecasted, copy)
    times = {file.name: file.stat().st_mtime_ns for file in (copy / "fits").iterdir()}
    main(arguments(pairs_file, tiny_causal, copy, "--more=500"))
    assert json.loads((copy / "forecast.json").read_text())["more"] == 500
    assert {file.name: file.stat().st_mtime_ns for file in (copy / "fits").iterdir()} == times
    main(arguments(pairs_file, tiny_causal, copy, "--kinds=false", "--model.learning_rate=1e-3"))
    left = {file.name: file.stat().st_mtime_ns for file in (copy / "fits").iterdir()}
    assert set(left) < set(times)
    assert all(left[name] != times[name] for name in left)


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--more=0"], "--more 0: expected 1 comparison or more"),
        (["--worth=2"], "--worth 2.0: expected a gain in accuracy above 0"),
        (["--folds=2"], "--folds 2: expected 3 or more"),
        (["--moer=2"], "moer"),
        (["--pairs=nowhere.jsonl"], "nowhere.jsonl: no such file"),
        (["--trainer.accelerator=tpu"], "this machine cannot run these --trainer options"),
        (["--trainer.devices=2"], "--trainer.devices 2: a forecast's fits run on one device"),
        (["--model.backbone=nowhere/model"], "nowhere/model"),
    ],
)
def test_mistakes_are_one_line(
    more: list[str],
    expected: str,
    pairs_file: Path,
    tiny_causal: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = refused(arguments(pairs_file, tiny_causal, tmp_path / "out", *more), capsys)
    assert expected in line
    assert not (tmp_path / "out").exists()


def refused(args: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stopped:
        main(args)
    assert stopped.value.code == 1
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    return line


def test_too_little_is_refused_and_somebody_elses_folder_kept(
    tiny_causal: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = tmp_path / "few.jsonl"
    write_pairs(few, fits.days(30))
    line = refused(arguments(few, tiny_causal, tmp_path / "out"), capsys)
    assert "expected 80 comparisons of 10 prompts at least, found 30 of 30" in line
    assert not (tmp_path / "out").exists()
    alike = tmp_path / "alike.jsonl"
    write_pairs(alike, [Pair("the same", f"good {n}", f"bad {n}") for n in range(100)])
    assert "found 100 of 1" in refused(arguments(alike, tiny_causal, tmp_path / "out"), capsys)
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "thesis.txt").write_text("years of work")
    assert "not an earlier result" in refused(arguments(few, tiny_causal, mine), capsys)
    assert [file.name for file in mine.iterdir()] == ["thesis.txt"]
