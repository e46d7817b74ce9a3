"""What people see of a run: figures, warnings, answers, and nothing that a text could break."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from lxml import html

from lsplugin.files import write_jsonl
from ppo.errors import PPOError
from ppo.report import Record, warnings, write_report

if TYPE_CHECKING:
    from pathlib import Path

HOSTILE = "</pre><script>alert(1)</script>"


def updates(**last: float) -> list[dict[str, Any]]:
    """Eleven updates on a straight line from a start to an end."""
    first = {"score": 0.0, "judge": 0.0, "kl": 0.0, "objective": 0.0, "length": 20.0, "ended": 1.0, "entropy": 3.0,
             "explained_variance": 0.0, "clipfrac": 0.1, "kl_coef": 0.05}  # fmt: skip
    end = first | {"score": 1.0, "judge": 0.5, "kl": 4.0, "objective": 0.8, "entropy": 2.0} | last
    return [
        {"update": n + 1, "episodes": 64 * (n + 1)} | {k: v + (end[k] - v) * n / 10 for k, v in first.items()}
        for n in range(11)
    ]


def answers() -> list[dict[str, Any]]:
    chat = [{"role": "user", "content": HOSTILE}]
    return [
        {
            "update": n,
            "prompt": chat if n % 2 else "Say hi",
            "answer": f"answer {n} {HOSTILE}",
            "score": n / 10,
            "judge": 0.5,
        }
        for n in range(1, 12)
        for _ in range(2)
    ]


def written(folder: Path, rows: list[dict[str, Any]], **told: object) -> html.HtmlElement:
    write_jsonl(folder / "metrics.jsonl", rows)
    write_jsonl(folder / "samples.jsonl", answers())
    (folder / "run.json").write_text(json.dumps({"kl_target": 6.0, "ended": None, "content": {"policy": "abc"}} | told))
    write_report(folder, title=f"Run {HOSTILE}")
    return html.fromstring((folder / "report.html").read_text())


def test_the_page_holds_figures_pictures_and_the_exported_policys_answers(tmp_path: Path) -> None:
    page = written(tmp_path, updates(), exported_after=7)
    rows = {row[0].text_content(): [cell.text_content() for cell in row[1:]] for row in page.iter("tr")}
    assert rows["reward"] == ["0.000", "1.000"]
    assert rows["KL to the start, nats a sequence"] == ["0.00", "4.00"]
    assert rows["content.policy"] == ["abc"]
    assert {image.get("alt") for image in page.iter("img")} == {
        "score",
        "kl",
        "frontier",
        "length",
        "entropy",
        "health",
    }
    before, after = page.xpath("//h3/..")
    assert "answer 1 " in before.text_content()
    assert "answer 8 " in after.text_content()  # written after 7 updates
    assert "answer 11 " not in after.text_content()
    assert not page.xpath("//script | //p[@role='alert']")
    assert (tmp_path / "report.png").read_bytes().startswith(b"\x89PNG")
    again = (tmp_path / "report.html").read_bytes()
    write_report(tmp_path, title=f"Run {HOSTILE}")
    assert (tmp_path / "report.html").read_bytes() == again


@pytest.mark.parametrize(
    ("last", "told", "said"),
    [
        ({"length": 31.0}, {}, "Answers went from 20.0 to 31.0 tokens"),
        ({"length": 12.0}, {}, "Answers went from 20.0 to 12.0 tokens"),
        ({"ended": 0.4}, {}, "60% of the last answers did not end"),
        ({"judge": -0.2}, {}, "the judge fell from 0.000 to -0.200"),
        ({}, {"ended": "KL 9.10 nats passed --kl-limit 9"}, "ended before its time: KL 9.10 nats"),
    ],
)
def test_what_should_be_looked_at_is_said(last: dict[str, float], told: dict[str, str], said: str) -> None:
    (found,) = warnings(Record("", updates(**last), [], told))
    assert said in found


def test_a_run_without_a_judge_or_samples_is_told_all_the_same(tmp_path: Path) -> None:
    rows = [{name: value for name, value in row.items() if name != "judge"} for row in updates()[:1]]
    page = written(tmp_path, rows)
    assert "judge" not in {row[0].text_content() for row in page.iter("tr")}
    (tmp_path / "samples.jsonl").write_text("")
    write_report(tmp_path, title="Run")
    (tmp_path / "metrics.jsonl").write_text("")
    with pytest.raises(PPOError, match=r"metrics.jsonl: no update to report on"):
        write_report(tmp_path, title="Run")
