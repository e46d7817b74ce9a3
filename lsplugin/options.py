"""Command-line options made of dataclass fields, so that every setting is documented once, where it is declared."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_type_hints

import typer

from lsplugin.files import as_path

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")

_SAID_BY_ITSELF: tuple[object, ...] = (None, False, True, (), "")
"""Defaults that an option's help need not name."""


def with_options(*kinds: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command whose last parameter is `**settings` an option for every field of the classes.

    A field is declared as `name: Annotated[type, "What it means."] = default`; further texts name its option where `--name` will
    not do. `settings` holds the options that were given; the others are left to the classes' defaults. Several names are one
    option, A,B,C; several paths are an option each; what is on by default gets its `--no-`.
    """
    options = [option for kind in kinds for option in _options(kind)]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**values: object) -> None:
            left_out = {option.name for option in options if values.get(option.name) in (None, [])}
            command(**{name: value for name, value in values.items() if name not in left_out})

        own = [p for p in inspect.signature(command, eval_str=True).parameters.values() if p.kind is not p.VAR_KEYWORD]
        run.__signature__ = inspect.Signature(own + options)  # type: ignore[attr-defined]
        run.__annotations__ = {p.name: p.annotation for p in own + options}
        return run

    return decorate


def make(kind: type[T], settings: Mapping[str, Any]) -> T:
    """Build a dataclass from those settings that are its fields."""
    names = {field.name for field in dataclasses.fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in settings.items() if name in names})


def _options(kind: type) -> list[inspect.Parameter]:
    hints = get_type_hints(kind, include_extras=True)
    return [_option(field, *get_args(hints[field.name])) for field in dataclasses.fields(kind)]


def _option(field: dataclasses.Field[Any], value_type: Any, text: str, *names: str) -> inspect.Parameter:  # noqa: ANN401 - a type
    flag = field.name.replace("_", "-")
    names = names or (f"--{flag}/--no-{flag}" if field.default is True else f"--{flag}",)
    default = f" Default: {field.default}." if field.default not in _SAID_BY_ITSELF else ""
    settings: dict[str, Any] = {"help": text + default, "show_default": False}
    kinds = {kind for kind in (value_type, *get_args(value_type)) if kind is not type(None)}
    if tuple[str, ...] in kinds:  # one option, A,B,C
        value_type, settings["parser"], settings["metavar"] = object, _names, "A,B,C"
    elif tuple[Path, ...] in kinds:  # one option a file
        value_type = list[Path]
    elif Path in kinds:
        settings["parser"], settings["metavar"] = as_path, "FILE"
    annotation = Annotated[value_type | None, typer.Option(*names, **settings)]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=annotation)


def _names(text: str) -> tuple[str, ...]:
    """Split `A, B,C` into its names."""
    return tuple(name.strip() for name in text.split(","))
