"""Our templates in Label Studio's own gallery: Create Project or Settings, Labeling Interface, Browse Templates.

The gallery is a folder of the installed label-studio, `annotation_templates`, each template a `config.yml` in it; the server
reads them when it starts. Ours lie in one folder of their own, `annotation_templates/lsplugin`; nothing else is ever touched.
"""

from __future__ import annotations

import base64
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml
from lxml import etree

from lsplugin.errors import LspluginError
from lsplugin.files import atomic_folder, write_text
from lsplugin.markup import element
from lsplugin.render import render
from lsplugin.template import Spec, describe, template_names

FOLDER = "lsplugin"
GROUP = "Generative AI"
"""The gallery's page shows the groups of its groups.txt only; this one is among them."""

_AFTER_THEIRS = 100  # our templates stand together, behind those that Label Studio brings

IN_CONTAINER = "/label-studio/label_studio/annotation_templates"
"""Where the gallery lies in the official image (the Dockerfile links /label-studio/label_studio to the package)."""

_FIND = (
    "import importlib.util as u; s = u.find_spec('label_studio'); print(s.submodule_search_locations[0] if s else '')"
)


def find_gallery(program: str) -> Path:
    """Find the gallery of the label-studio whose command is `program`, without importing it.

    Args:
        program: path of the label-studio command; its first line names the Python that runs it.

    Raises:
        LspluginError: that Python has no label-studio, or its gallery is somewhere else.
    """
    first = Path(program).read_bytes().split(b"\n", 1)[0].decode(errors="replace")
    python = first.removeprefix("#!").strip() if first.startswith("#!") else "python3"
    try:
        found = subprocess.run([*python.split(), "-c", _FIND], capture_output=True, text=True, check=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise LspluginError(
            f"{program}: the Python that should run it does not ({error}); install label-studio anew"
        ) from None
    gallery = Path(found.stdout.strip()) / "annotation_templates"
    if not found.stdout.strip() or not (gallery / "groups.txt").is_file():
        raise LspluginError(
            f"the label-studio of {program} keeps its gallery somewhere else than in {gallery}; "
            "paste configs (lsplugin render) into Labeling Interface, Code instead"
        )
    return gallery


def install(gallery: Path) -> Path:
    """Put our templates into a gallery, in place of those of an earlier version; give their folder.

    Raises:
        LspluginError: it cannot be written.
    """
    folder = gallery / FOLDER
    try:
        export(folder)
    except PermissionError:
        raise LspluginError(
            f"{gallery} cannot be written by this user: run it as its owner, or mount what `lsplugin gallery export DIR` makes"
        ) from None
    return folder


def remove(gallery: Path) -> bool:
    """Take our templates out of a gallery; False when they are not in it."""
    folder = gallery / FOLDER
    if not folder.is_dir():
        return False
    try:
        shutil.rmtree(folder)
    except PermissionError:
        raise LspluginError(f"{folder} cannot be removed by this user: run it as its owner") from None
    return True


def is_current(gallery: Path) -> bool:
    """Say whether our templates are in a gallery as this version makes them."""
    files = {gallery / FOLDER / name / "config.yml": text for name, text in _files().items()}
    return all(file.is_file() and file.read_text(encoding="utf-8") == text for file, text in files.items())


def export(folder: Path) -> None:
    """Write our templates as a folder that can be mounted into a gallery; it is replaced as a whole."""
    with atomic_folder(folder, marker=f"{template_names()[0]}/config.yml") as made:
        for name, text in _files().items():
            (made / name).mkdir()
            write_text(made / name / "config.yml", text)


def _files() -> dict[str, str]:
    """Give the gallery's config.yml of every template."""
    return {name: _entry(name, order) for order, name in enumerate(template_names(), start=_AFTER_THEIRS)}


def _entry(name: str, order: int) -> str:
    title, line = describe(name)
    config = render(Spec(template=name, answers=3 if name == "ranking" else 2))
    entry: dict[str, Any] = {
        "title": f"{title} (preferences)",
        "type": "community",
        "group": GROUP,
        "order": order,
        "image": _picture(name),
        "details": _paragraph(line),
        "config": config,
    }
    return yaml.dump(entry, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10**6)


class _Dumper(yaml.SafeDumper):
    """Writes long texts as blocks that a person can read."""


def _as_block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _as_block)


def _paragraph(text: str) -> str:
    made = element("p")
    made.text = text
    return etree.tostring(made, encoding="unicode")


def _picture(name: str) -> str:
    """Draw the template's layout: a prompt, boxes, and what one labels with; as a data URL."""
    box = {"rx": "4", "fill": "#ffffff", "stroke": "#a49f95"}
    shapes = [element("rect", x="20", y="16", width="280", height="32", rx="4", fill="#e1ded5")]
    count = 3 if name == "ranking" else 2
    width = (280 - 12 * (count - 1)) / count
    for index in range(count):
        chosen = (
            {"stroke": "#204f4d", "stroke-width": "3", "fill": "#d4f1eb"}
            if name in {"pairwise", "scale"} and index
            else {}
        )
        x = f"{20 + index * (width + 12):.0f}"
        shapes.append(element("rect", **(box | {"x": x, "y": "62", "width": f"{width:.0f}", "height": "84"} | chosen)))
    marks = {"pairwise": 2, "scale": 7, "ranking": 4, "rating": 10}.get(name, 2)
    step = 280 / marks
    for index in range(marks):
        full = index == marks - 2 if name != "rating" else index in {0, 1, 2, 5, 6, 7, 8}
        x = f"{20 + step * (index + 0.5):.0f}"
        shapes.append(element("circle", cx=x, cy="174", r="7", fill="#4c5fa9" if full else "#ffffff", stroke="#4c5fa9"))
    namespace = {"xmlns": "http://www.w3.org/2000/svg", "viewBox": "0 0 320 204"}
    drawing = element("svg", element("rect", width="320", height="204", fill="#f9f8f6"), *shapes, **namespace)
    return "data:image/svg+xml;base64," + base64.b64encode(etree.tostring(drawing)).decode()
