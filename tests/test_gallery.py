"""Our templates in Label Studio's gallery: put in and taken out without a trace, found by a person, labelled with."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from lxml import etree

from lsplugin import gallery
from lsplugin.errors import LspluginError
from lsplugin.server import find_program
from lsplugin.template import template_names
from lsplugin.validation import validate
from tests.helpers import complaint, pairwise_result, run_cli, unavailable
from tests.test_browser import box_of, open_task, submitted

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.conftest import LabelStudio
    from tests.helpers import Person


@pytest.fixture
def fake(tmp_path: Path) -> Path:
    """An installed package with a gallery of one template, and a command that runs it."""
    folder = tmp_path / "site" / "label_studio" / "annotation_templates"
    (folder / "theirs").mkdir(parents=True)
    (folder / "theirs" / "config.yml").write_text("title: Theirs\n")
    (folder / "groups.txt").write_text("Generative AI\n")
    (folder.parent / "__init__.py").write_text("raise SystemExit('nobody needs to import it')\n")
    python = tmp_path / "python"
    python.write_text(f'#!/bin/sh\nPYTHONPATH="{tmp_path / "site"}" exec "{sys.executable}" "$@"\n')
    program = tmp_path / "label-studio"
    program.write_text(f"#!{python}\n")
    python.chmod(python.stat().st_mode | stat.S_IXUSR)
    return program


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_install_and_remove_touch_our_folder_only(fake: Path) -> None:
    found = gallery.find_gallery(str(fake))
    before = files(found)
    assert not gallery.is_current(found)
    assert gallery.install(found) == found / "lsplugin"
    assert gallery.is_current(found)
    added = {name for name in files(found) if name not in before}
    assert added == {f"lsplugin/{name}/config.yml" for name in template_names()}
    assert {name: text for name, text in files(found).items() if name in before} == before
    (found / "lsplugin" / "pairwise" / "config.yml").write_text("title: of an earlier version\n")
    assert not gallery.is_current(found)
    gallery.install(found)
    assert gallery.is_current(found)
    assert gallery.remove(found)
    assert files(found) == before
    assert not gallery.remove(found)


def test_every_entry_is_one_that_the_gallery_shows(tmp_path: Path) -> None:
    said = run_cli(["lsplugin", "gallery", "export", tmp_path / "made"])
    assert f"-v {tmp_path / 'made'}:/label-studio/label_studio/annotation_templates/lsplugin:ro" in said.stderr
    theirs = yaml.safe_load(next(iter(real_gallery().glob("generative-ai/*/config.yml"))).read_text())
    groups = (real_gallery() / "groups.txt").read_text().splitlines()
    for name in template_names():
        entry = yaml.safe_load((tmp_path / "made" / name / "config.yml").read_text())
        assert set(entry) == set(theirs)
        assert entry["group"] in groups
        assert validate(entry["config"]) == []
        etree.fromstring(entry["details"])
        assert entry["image"].startswith("data:image/svg+xml;base64,")


def real_gallery() -> Path:
    try:
        return gallery.find_gallery(find_program())
    except LspluginError as error:
        unavailable(str(error))


def test_a_gallery_that_moved_or_cannot_be_written_is_explained(fake: Path, tmp_path: Path) -> None:
    found = gallery.find_gallery(str(fake))
    (found / "groups.txt").unlink()
    with pytest.raises(LspluginError, match="keeps its gallery somewhere else"):
        gallery.find_gallery(str(fake))
    fake.write_text("#!/nowhere/python\n")
    with pytest.raises(LspluginError, match="install label-studio anew"):
        gallery.find_gallery(str(fake))
    other = tmp_path / "mine"
    other.mkdir()
    (other / "letter.txt").write_text("keep me")
    assert "not an earlier result" in complaint(["lsplugin", "gallery", "export", other])
    assert files(other) == {"letter.txt": b"keep me"}


def test_a_folder_without_the_right_to_write(fake: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = gallery.find_gallery(str(fake))

    def refuse(folder: Path) -> None:  # root may write anywhere, so the refusal itself is made here
        raise PermissionError(13, "Permission denied", str(folder))

    monkeypatch.setattr(gallery, "export", refuse)
    with pytest.raises(LspluginError, match="lsplugin gallery export DIR"):
        gallery.install(found)


@pytest.mark.server
def test_the_commands_on_the_installed_label_studio(server: LabelStudio) -> None:
    """A server that `serve` starts has them already; taking them out and putting them back leaves it so."""
    assert gallery.is_current(real_gallery())
    assert run_cli(["lsplugin", "gallery", "status"]).stdout == f"{real_gallery()}: installed\n"
    assert run_cli(["lsplugin", "gallery", "remove"]).stderr == "removed\n"
    assert run_cli(["lsplugin", "gallery", "status"]).stdout.endswith(": not installed\n")
    assert run_cli(["lsplugin", "gallery", "remove"]).stderr == "our templates are not in the gallery\n"
    assert run_cli(["lsplugin", "gallery", "install"]).stderr.startswith("installed 4 templates in ")
    assert gallery.is_current(real_gallery())


@pytest.mark.server
@pytest.mark.browser
def test_pick_one_from_the_gallery_and_label(page: Page, server: LabelStudio, admin: Person) -> None:
    project = admin.post("/api/projects/", {"title": "From the gallery", "enable_empty_annotation": False})["id"]
    page.set_viewport_size({"width": 1280, "height": 900})
    page.goto(f"{server.url}/projects/{project}/settings/labeling")
    page.get_by_role("button", name="Browse Templates").click()
    page.get_by_text("Generative AI").click()
    card = page.locator("*", has_text="Pairwise comparison (preferences)").get_by_text(
        "Pairwise comparison (preferences)"
    )
    picture = page.locator('img[src^="data:image/svg+xml"]').first
    assert picture.evaluate("image => image.naturalWidth") > 0
    card.click()
    with page.expect_response(lambda r: f"/api/projects/{project}" in r.url and r.request.method == "PATCH") as saved:
        page.get_by_role("button", name="Save").click()
    assert saved.value.ok
    row = {"prompt": "Add up a list.", "answer1": "sum(numbers)", "answer2": "total = 0; return total"}
    made = admin.post(f"/api/projects/{project}/import?return_task_ids=true", [{"data": row}])
    (task,) = made["task_ids"]
    root = open_task(page, server.url, project, task)
    box = root.locator(".lsplugin-answer").first
    box.click(position={"x": box_of(box)["width"] - 8, "y": 8})
    root.get_by_text("The one I clicked is better").click()
    (side, verdict) = submitted(page, admin, task)
    assert side == pairwise_result("left")[0]
    assert verdict["value"] == {"choices": ["better"]}
