"""The report and the card of a reward model: what they show, when they warn, that no text in them comes alive."""

from __future__ import annotations

import base64
import os
import re
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from huggingface_hub import ModelCard

from lsplugin.files import write_json
from lsplugin.labels import read_labels
from lsplugin.summary import summarise as summarise_labels
from rm_lightning.backbone import load_scorer, load_tokenizer
from rm_lightning.card import model_card
from rm_lightning.errors import RewardModelError
from rm_lightning.metrics import summarise
from rm_lightning.report import Record, floor_warning, leak_warning, read_ceiling, write_report
from rm_lightning.scorer import RewardScorer
from rm_lightning.text import JOIN_KEY, default_join
from tests.test_metrics import made_up, observed
from tests.test_report import task, vote

if TYPE_CHECKING:
    from pathlib import Path

    from playwright.sync_api import Browser

HOSTILE = (
    "</script></pre><img src=x onerror=\"document.title='broken'\"><b>bold</b> {{ 7 * 7 }} $x_1$ <!-- & \u202e שלום"
)
CEILING = {
    "value": 0.8,
    "low": 0.75,
    "high": 0.85,
    "at_least": 0.72,
    "at_most": 0.83,
    "from": "agreement of annotators",
}


def learned() -> list[dict[str, float]]:
    """Three hundred steps of training, validated four times."""
    noise = torch.randn(300, generator=torch.Generator().manual_seed(0)).tolist()
    rows: list[dict[str, float]] = [
        {
            "step": step,
            "epoch": step // 100,
            "train_loss": 0.45 + 0.25 * 0.98**step + 0.05 * noise[step],
            "train_accuracy": 0.8 - 0.3 * 0.98**step + 0.05 * noise[step],
            "learning_rate": 1e-4 * (1 - step / 300),
        }
        for step in range(300)
    ]
    shown = zip((75, 150, 225, 300), (0.66, 0.61, 0.59, 0.595), (0.6, 0.68, 0.7, 0.71), strict=True)
    return rows + [{"step": step, "val_log_loss": loss, "val_accuracy": right} for step, loss, right in shown]


def wrong(**texts: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"where": "pairs.jsonl, line 12", "prompt": "What is the capital of France?"}
    found |= {"chosen": "Paris.\n\nSurely.", "rejected": "It is not known.", "difference": -2.5, "probability": 1.0}
    return found | texts


RECORD = Record(
    title="Reward model of the coffee house",
    metrics=summarise(made_up(400)),
    data={
        "in": 2000,
        "used": {"train": 1500, "validation": 60, "test": 400},
        "dropped": {"identical answers": 30, "too long": 10},
    },
    history=learned(),
    ceiling=CEILING,
    settings={"backbone": "gpt2", "learning_rate": 2e-5, "lora": {"r": 16}, "pairs": "pairs.jsonl"},
    worst=[
        wrong(),
        wrong(prompt=[{"role": "user", "content": "How are you?"}, {"role": "assistant", "content": "Well."}]),
        wrong(chosen="word " * 400, rejected="x" * 3000),
    ],
)


def with_metrics(record: Record, **changed: Any) -> Record:
    return replace(record, metrics={**record.metrics, **changed})


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_shows_all_and_needs_no_other_file(scheme: Any, browser: Browser, tmp_path: Path) -> None:
    write_report(tmp_path / "report.html", RECORD)
    page = browser.new_page(color_scheme=scheme, viewport={"width": 1000, "height": 1180})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: asked.append(message.text))
    page.goto((tmp_path / "report.html").as_uri())
    widths = page.evaluate("[...document.images].map(image => image.complete && image.naturalWidth)")
    assert len(widths) == 7
    assert all(width > 300 for width in widths)
    assert [found for found in asked if not found.startswith(("file:", "data:"))] == []
    text = page.inner_text("body")
    for name in ("accuracy", "length_floor"):
        low, high = RECORD.metrics[f"{name}_interval"]
        assert f"{RECORD.metrics[name]:.3f} ({low:.3f} to {high:.3f})" in text
    assert "0.800 (0.720 to 0.830)" in text
    assert page.locator(".warning").count() == 0
    rows = page.locator("table", has_text="of 2000 pairs").locator("tr").all_inner_texts()
    told = ["train 1500", "validation 60", "test 400", "dropped: identical answers 30", "dropped: too long 10"]
    assert [" ".join(row.split()) for row in rows[1:]] == told
    assert "Surely." not in text  # the worst are folded
    page.locator("summary").nth(0).click()
    assert "Paris.\n\nSurely." in page.inner_text("body")
    page.locator("summary").nth(1).click()
    assert "assistant: Well." in page.inner_text("body")
    page.locator("summary").nth(2).click()
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")  # a word without end is broken
    if folder := os.environ.get("SCREENSHOTS"):
        page.screenshot(path=f"{folder}/rm_report_{scheme}.png", full_page=True)
    page.close()


@pytest.mark.browser
def test_no_text_comes_alive(browser: Browser, tmp_path: Path) -> None:
    turns = [{"role": HOSTILE, "content": HOSTILE}]
    record = Record(
        title=HOSTILE,
        metrics=RECORD.metrics,
        data={"in": 1, "used": {HOSTILE: 0}, "dropped": {HOSTILE: 1}},
        ceiling=CEILING | {"from": HOSTILE},
        settings={HOSTILE: HOSTILE, "nested": [HOSTILE]},
        worst=[wrong(where=HOSTILE, prompt=HOSTILE, chosen=HOSTILE, rejected=HOSTILE), wrong(prompt=turns)],
    )
    write_report(tmp_path / "report.html", record)
    page = browser.new_page()
    trouble: list[str] = []
    page.on("console", lambda message: trouble.append(message.text))
    page.on("request", lambda request: trouble.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    page.wait_for_timeout(300)
    assert [found for found in trouble if not found.startswith(("file:", "data:"))] == []
    assert page.title() == " ".join(HOSTILE.split())
    assert page.locator("script, body img[src=x], pre img, td img").count() == 0
    assert page.locator("pre").first.text_content() == HOSTILE
    assert page.locator("h1").text_content() == HOSTILE
    page.close()


def test_the_pictures_lie_beside_the_page_and_are_always_the_same(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_report(tmp_path / name / "report.html", RECORD)
    made = (tmp_path / "one" / "report.png").read_bytes()
    assert made[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", made[16:24]) == (1200, 1280)  # seven pictures, two a row
    for name in ("report.html", "report.png"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_page_of_little_says_so(tmp_path: Path) -> None:
    only_ties = summarise(observed([1.0], probability=[0.5]))
    bare = Record(title="Bare", metrics=only_ties, data={"in": 0, "used": {}, "dropped": {}})
    write_report(tmp_path / "report.html", bare)
    text = (tmp_path / "report.html").read_text()
    assert "<img" not in text  # nobody decided, so there is nothing to draw
    assert "not known" in text
    assert "No ceiling is known" in text
    assert "How it learned" not in text


def test_a_long_history_is_drawn_as_means(tmp_path: Path) -> None:
    """A page of a hundred thousand steps is about as large as one of three hundred."""
    rows = [{"step": step, "train_loss": 0.7 - step / 1e6} for step in range(100_000)]
    for name, history in {"long": rows, "short": rows[:300]}.items():
        write_report(tmp_path / f"{name}.html", replace(RECORD, history=history))
    assert (tmp_path / "long.html").stat().st_size < 1.1 * (tmp_path / "short.html").stat().st_size


class TestWarnings:
    def test_of_a_leak(self, tmp_path: Path) -> None:
        good = {"accuracy": 0.9, "accuracy_interval": [0.84, 0.94]}
        said = leak_warning(good, CEILING)
        assert said is not None
        assert "0.840 at least" in said
        assert "above 0.830" in said
        assert leak_warning(good | {"accuracy_interval": [0.83, 0.94]}, CEILING) is None
        assert leak_warning(good, None) is leak_warning(good | {"accuracy_interval": [None, None]}, CEILING) is None
        write_report(tmp_path / "report.html", with_metrics(RECORD, **good))
        assert re.search(r'role="alert">Too good to be true', (tmp_path / "report.html").read_text())

    @pytest.mark.parametrize(
        ("value", "interval", "begins"),
        [
            (0.6, [0.55, 0.65], "It does not beat length"),
            (0.64, [0.58, 0.7], "Not surely better"),
            (0.7, [0.65, 0.75], None),
        ],
    )
    def test_of_length(self, value: float, interval: list[float], begins: str | None, tmp_path: Path) -> None:
        record = with_metrics(RECORD, accuracy=value, accuracy_interval=interval, length_floor=0.62)
        said = floor_warning(record.metrics)
        assert said is begins is None or (said is not None and begins is not None and said.startswith(begins))
        write_report(tmp_path / "report.html", record)
        assert (tmp_path / "report.html").read_text().count('role="alert"') == (begins is not None)


class TestCeiling:
    def test_is_read_from_the_figures_of_labels(self, tmp_path: Path) -> None:
        votes = [task(number, *(vote(who, "left" if who < 3 else "right") for who in (1, 2, 3))) for number in range(9)]
        found = summarise_labels(read_labels(votes))
        write_json(tmp_path / "report.json", found)
        figures = found["agreement"]["ceiling"]
        assert read_ceiling(tmp_path / "report.json") == {name: figures[name] for name in CEILING}
        alone = summarise_labels(read_labels([task(1, vote(1, "left"))]))
        write_json(tmp_path / "alone.json", alone)
        assert read_ceiling(tmp_path / "alone.json") is None

    @pytest.mark.parametrize(
        ("figures", "said"),
        [
            ({"agreement": []}, "expected the figures of `lsplugin report` with agreement.ceiling, found none"),
            ([1], "expected the figures of `lsplugin report`"),
            ({"agreement": {"ceiling": CEILING | {"at_most": 83}}}, "agreement.ceiling.at_most from 0 to 1, found 83"),
            ({"agreement": {"ceiling": CEILING | {"at_least": None}}}, "at_least from 0 to 1, found None"),
            ({"agreement": {"ceiling": CEILING | {"value": True}}}, "value from 0 to 1, found True"),
        ],
    )
    def test_that_is_none_is_one_line(self, figures: Any, said: str, tmp_path: Path) -> None:
        write_json(tmp_path / "report.json", figures)
        with pytest.raises(RewardModelError, match=re.escape(said)) as raised:
            read_ceiling(tmp_path / "report.json")
        assert "\n" not in str(raised.value)


def test_pairs_do_not_go_missing() -> None:
    with pytest.raises(RewardModelError, match="2000 pairs came in, but 1900 are used and 40 dropped"):
        replace(RECORD, data={**RECORD.data, "used": {"train": 1900}})


@pytest.fixture(scope="module")
def exported(tiny_causal: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model as it is exported: a tokenizer with a pad token of its own, and the join in the config."""
    folder = tmp_path_factory.mktemp("exported") / "rm"
    tokenizer = load_tokenizer(str(tiny_causal))
    model = load_scorer(str(tiny_causal), tokenizer, new=True)
    setattr(model.config, JOIN_KEY, default_join(tokenizer))
    model.save_pretrained(folder)
    tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}<assistant>"
    tokenizer.save_pretrained(folder)
    return folder


def card_of(record: Record, name: str, base: str = "openai-community/gpt2", join: str = " ") -> str:
    versions = {"torch": "2.13", "transformers": "5.23"}
    return model_card(record, name=name, base=base, join=join, fingerprint="sha256 12ab", library_versions=versions)


class TestCard:
    def test_its_code_gives_our_scores(self, exported: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (code,) = re.findall(r"```python\n(.*?)```", card_of(RECORD, str(exported)), re.DOTALL)
        scope: dict[str, Any] = {}
        exec(code, scope)  # as a reader would run it
        assert re.fullmatch(r"-?\d\S*\n", capsys.readouterr().out)
        prompts = ["How was it?", "", [{"role": "user", "content": "Was the coffee cold?"}]]
        answers = ["It was good, and not cold.", "Nobody cared.", "Yes."]
        ours = RewardScorer(str(exported))(prompts, answers)
        theirs = [scope["score"](prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        assert theirs == pytest.approx(ours.tolist(), abs=1e-5)
        assert len(set(theirs)) == 3

    def test_the_hub_reads_its_front_matter(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        data = ModelCard(card_of(RECORD, "rm")).data.to_dict()
        assert data == {
            "base_model": "openai-community/gpt2",
            "library_name": "transformers",
            "pipeline_tag": "text-classification",
            "tags": ["reward-model"],
        }
        monkeypatch.chdir(tmp_path)
        (tmp_path / "runs" / "start").mkdir(parents=True)
        for local in ("runs/start", str(tmp_path / "runs" / "start")):  # the first looks like a name on the hub
            card = card_of(RECORD, "rm", base=local)
            assert "base_model" not in ModelCard(card).data.to_dict()
            assert "a local model (start)" in card
            assert str(tmp_path) not in card

    def test_it_says_what_was_measured(self) -> None:
        card, metrics = card_of(RECORD, "rm"), RECORD.metrics
        low, high = metrics["accuracy_interval"]
        assert f"| accuracy | {metrics['accuracy']:.3f} | {low:.3f} to {high:.3f} |" in card
        assert f"| floor: always the longer answer | {metrics['length_floor']:.3f} |" in card
        assert "| ceiling: as far as people agree | 0.800 | 0.720 to 0.830 |" in card
        assert (
            "1960 of 2000 pairs were used (train 1500, validation 60, test 400); 30 dropped: identical answers" in card
        )
        assert "sha256 12ab" in card
        assert "torch 2.13, transformers 5.23" in card
        assert "ceiling:" not in card_of(replace(RECORD, ceiling=None), "rm")
        assert "**Too good to be true" in card_of(with_metrics(RECORD, accuracy_interval=[0.9, 0.95]), "rm")

    def test_texts_stay_texts(self) -> None:
        card = card_of(replace(RECORD, title=f"Mine\n# {HOSTILE} [x](http://y)"), 'a"b', join="\n\nAssistant: ")
        assert "<img" not in card
        assert "[x](" not in card
        assert len(re.findall(r"^# ", card, re.MULTILINE)) == 1
        (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
        compile(code, "card", "exec")
        assert r'folder = "a\"b"' in code
        assert r'answer = "\n\nAssistant: " + answer' in code


def test_pictures_are_images_of_their_own() -> None:
    """An SVG inside <img> runs no script; and nothing that a user named is drawn, so none can be needed."""
    from functools import partial

    from lsplugin.pictures import svg
    from rm_lightning.report import _draw_headline

    address = svg(partial(_draw_headline, record=replace(RECORD, title=HOSTILE)))
    drawn = base64.b64decode(address.removeprefix("data:image/svg+xml;base64,")).decode()
    assert drawn.startswith("<?xml")
    assert "onerror" not in drawn
