"""The tags and attributes that Label Studio knows, from its own schema.

The editor's bundle carries the schema that its code completion uses. `vocabulary.json` holds the names, types and version of it,
without its prose. To make it anew from the label-studio of this environment:

    python -m lsplugin.validation

The schema is what is documented; `_MORE` adds what the editor reads besides.
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lsplugin.errors import LspluginError
from lsplugin.files import write_text

FILE = Path(__file__).with_name("vocabulary.json")

_VISIBILITY = ("visibleWhen", "whenTagName", "whenLabelValue", "whenChoiceValue", "whenRole")
_EVERYWHERE = ("style", "className", "idAttr", "name", *_VISIBILITY)
_MORE: dict[str, tuple[str, ...]] = {
    "Panel": ("value",),
    **dict.fromkeys(("PolygonLabels", "RectangleLabels", "EllipseLabels", "KeyPointLabels", "BrushLabels"), ("value",)),
    "Choice": ("background", "showAlias", "granularity"),
    "Label": ("background", "maxUsages", "showAlias", "predicate"),
    "Labels": ("hotkey", "zoom", "allowEmpty"),
    "Choices": ("selection", "hotkey", "layout"),
    "Rating": ("icon", "defaultValue"),
    "Paragraphs": ("granularity", "contextScroll"),
    "HyperText": ("clickableLinks",),
    "Audio": ("speed", "zoom"),
    "Video": ("framerate",),
    "Chat": ("toName", "minMessages", "maxMessages"),
    "Pairwise": (
        "required",
        "requiredMessage",
        "hotkey",
        "leftClass",
        "rightClass",
    ),  # read by nobody: pairwise-ignored
}
"""What the editor's models or Label Studio's own templates have and the schema lacks."""

SINCE = {
    **dict.fromkeys(("Bucket", "Magicwand", "Ranker"), (1, 8, 0)),
    "TimelineLabels": (1, 14, 0),
    "Pdf": (1, 19, 0),
    "MultiChannel": (1, 20, 0),
    **dict.fromkeys(("Bitmask", "BitmaskLabels"), (1, 21, 0)),
    **dict.fromkeys(("Markdown", "Vector", "VectorLabels"), (1, 22, 0)),
}
"""The release that brought a tag: the first of 1.7.0, 1.8.0, ... 1.23.0 whose editor registers it. (The Ranker of
1.7 was another one.)"""


@dataclass(frozen=True)
class Vocabulary:
    """What a config may say.

    Attributes:
        label_studio: the version that it was taken from.
        tags: tag -> attribute -> its type: a list of values, or a word such as `string` or `number`.
        registered: tags that the open-source editor can show, in lower case.
    """

    label_studio: str
    tags: dict[str, dict[str, Any]]
    registered: frozenset[str]

    def attributes(self, tag: str) -> dict[str, Any]:
        """Attributes of a tag, with those that any tag may have."""
        more = dict.fromkeys((*_MORE.get(tag, ()), *_EVERYWHERE), "string")
        return more | self.tags.get(tag, {})

    def is_control(self, tag: str) -> bool:
        """Say whether a tag labels something: it names what with toName."""
        return "toName" in self.tags.get(tag, {})


@cache
def vocabulary() -> Vocabulary:
    """Load the vocabulary that this package brings."""
    found = json.loads(FILE.read_text(encoding="utf-8"))
    return Vocabulary(found["label_studio"], found["tags"], frozenset(found["registered"]))


def extract(bundle: Path) -> dict[str, Any]:
    """Read tags, attributes and registered tags out of an editor's bundle.

    Args:
        bundle: folder of the bundle's scripts.

    Raises:
        LspluginError: no schema in it.
    """
    scripts = [path.read_text(encoding="utf-8") for path in sorted(bundle.glob("*.js"))]
    literal = re.compile(r"JSON\.parse\('((?:[^'\\]|\\.)*)'\)")
    schemas = [found[1] for script in scripts for found in literal.finditer(script) if '"Pairwise":{"name"' in found[1]]
    if not schemas:
        raise LspluginError(f"{bundle}: no schema of tags in these scripts; has the editor moved it?")
    schema = json.loads(re.sub(r"\\(.)", lambda escape: {"n": "\n", "t": "\t"}.get(escape[1], escape[1]), schemas[0]))
    registered = {tag for script in scripts for tag in re.findall(r'addTag\("([a-z0-9]+)"', script)}
    found = [
        (tag, name, attribute["type"]) for tag, entry in schema.items() for name, attribute in entry["attrs"].items()
    ]
    spellings = Counter(name for _, name, _ in found)
    usual = {name.lower(): name for name, _ in reversed(spellings.most_common())}  # it says toname twice, toName else
    tags: dict[str, dict[str, Any]] = {tag: {} for tag in schema}
    for tag, name, kind in found:
        if name.isalnum():
            tags[tag][usual[name.lower()]] = kind
    tags.setdefault("Panel", {"value": "string"})
    return {"tags": tags, "registered": sorted(registered)}


def main() -> None:
    """Write vocabulary.json anew."""
    found = importlib.util.find_spec("web")
    if found is None or not found.submodule_search_locations:
        raise SystemExit("label-studio is not installed here: pip install label-studio")
    bundle = Path(next(iter(found.submodule_search_locations))) / "dist" / "apps" / "labelstudio"
    about = json.loads((bundle / "version.json").read_text(encoding="utf-8"))
    source = {"label_studio": version("label-studio"), "bundle": {name: about[name] for name in ("commit", "date")}}
    write_text(FILE, json.dumps(source | extract(bundle), indent=1) + "\n")
