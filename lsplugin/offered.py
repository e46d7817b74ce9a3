"""What the controls of a config can store, to find stored results that no longer fit it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lxml import etree

from lsplugin.interface import CONTROL_TAGS

if TYPE_CHECKING:
    from collections.abc import Mapping

_SIDES = frozenset({"left", "right"})


@dataclass(frozen=True)
class Offered:
    """The names of a config, and what its controls offer.

    Attributes:
        controls: name of every control -> its tag.
        values: name of every control that offers a fixed set of values -> these.
        names: the names of all tags.
    """

    controls: Mapping[str, str]
    values: Mapping[str, frozenset[str]]
    names: frozenset[str]

    @classmethod
    def from_config(cls, config: str) -> Offered:
        """Read it out of a labeling config."""
        root = etree.fromstring(config.encode(), etree.XMLParser(resolve_entities=False, no_network=True))
        named = [(found.get("name", ""), found) for found in root.iter("*") if found.get("name")]
        controls = {name: found for name, found in named if found.get("toName")}
        values = {name: found for name, control in controls.items() if (found := _values(control))}
        return cls(
            {name: str(found.tag) for name, found in controls.items()}, values, frozenset(name for name, _ in named)
        )

    def unfit(self, result: Mapping[str, Any]) -> str | None:
        """Say why a stored result does not fit the config: its control or its value is gone; None where it fits."""
        name, type_ = result.get("from_name"), result.get("type")
        if name is None:  # a relation
            return None
        if name not in self.controls:
            return f"the control `{name}` is gone"
        tag = self.controls[name]
        if tag in CONTROL_TAGS and type_ != tag.lower():
            return f"`{name}` is a {tag} now, they are of type {type_}"
        if name in self.values:
            gone = [value for value in _stored(result) if value not in self.values[name]]
            if gone:
                return f"`{name}` no longer offers `{gone[0]}`"
        return None

    def hidden(self, result: Mapping[str, Any]) -> str | None:
        """Say why the editor does not show a predicted result; None where it does."""
        target = result.get("to_name")
        if (reason := self.unfit(result)) or result.get("from_name") is None:
            return reason
        return None if target in self.names else f"to_name `{target}` is the name of no tag"


def _values(control: etree._Element) -> frozenset[str]:
    """Give what a control offers; nothing where its values come with the task, or are free."""
    if control.tag == "Pairwise":
        return _SIDES
    if control.tag == "Choices" and not control.get("value", "").startswith("$"):
        return frozenset(choice.get("alias") or choice.get("value") or "" for choice in control.iter("Choice"))
    return frozenset()


def _stored(result: Mapping[str, Any]) -> list[str]:
    """Give the values that a result holds; of a nested choice the last step."""
    value = result.get("value") or {}
    if result.get("type") == "pairwise":
        return [str(value.get("selected"))]
    return [str(item[-1] if isinstance(item, list) and item else item) for item in value.get("choices") or []]
