"""Settings from a YAML file, under the names of the options; options on the command line win."""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from lsplugin.files import read_text
from ppo.errors import PPOError

if TYPE_CHECKING:
    from collections.abc import Collection


def read_config(path: Path, known: Collection[str]) -> dict[str, Any]:
    """Read settings; names may be written with - or _.

    Args:
        path: the file.
        known: names of all options, with _.

    Raises:
        PPOError: it is no YAML of names and values, or a name is no option's.
    """
    text = read_text(path)
    try:
        tree, values = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PPOError(f"{path}: expected YAML, found something else ({' '.join(str(error).split())})") from None
    if tree is None:
        return {}
    if not isinstance(tree, yaml.MappingNode) or not isinstance(values, dict):
        raise PPOError(f"{path}: expected a line `name: value` for every setting")
    for key, _ in tree.value:
        name = str(key.value)
        if name.replace("-", "_") not in known:
            near = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
            hint = f"; did you mean {near[0].replace('_', '-')}?" if near else ""
            raise PPOError(f"{path}, line {key.start_mark.line + 1}: there is no setting {name}{hint}")
    return {str(name).replace("-", "_"): value for name, value in values.items() if value is not None}


def _take(context: typer.Context, path: Path | None) -> Path | None:
    if path is not None:
        known = {str(option.name) for option in context.command.params} - {"config", "print_config", "help"}
        context.default_map = read_config(path, known)
    return path


ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", callback=_take, is_eager=True, show_default=False, metavar="FILE",
        help="YAML file of settings under the names of these options, which win.",
    ),
]  # fmt: skip
PrintConfig = Annotated[
    bool, typer.Option("--print-config", help="Print all settings as such a file, and do nothing else.")
]


def as_config(settings: dict[str, Any]) -> str:
    """Write settings as a file that `read_config` takes."""
    plain = {
        name.replace("_", "-"): str(value) if isinstance(value, Path) else value
        for name, value in settings.items()
        if value is not None and value != []
    }
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)
