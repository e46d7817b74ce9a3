"""Command-line options made of dataclass fields, so that every setting is documented once, where it is declared."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from typing import TYPE_CHECKING, Annotated, Any, TypeVar, get_args, get_type_hints

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

T = TypeVar("T")


def with_options(*kinds: type) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command whose last parameter is `**settings` an option for every field of the classes.

    A field is declared as `name: Annotated[type, "What it means."] = default`. `settings` holds the options that were given; the
    others are left to the classes' defaults.
    """
    options = [option for kind in kinds for option in _options(kind)]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def run(**values: object) -> None:
            left_out = {option.name for option in options if values[option.name] is None}
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


def _option(field: dataclasses.Field[Any], value_type: Any, text: str) -> inspect.Parameter:  # noqa: ANN401 - a type
    option = typer.Option(
        f"--{field.name.replace('_', '-')}", help=f"{text} Default: {field.default}.", show_default=False
    )
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[value_type | None, option]
    )
