"""The people of an organisation: how they join, and what they are called."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lsplugin.project import Client


def invite_link(client: Client) -> str:
    """Give the address at which annotators sign up; whoever has it can join the organisation."""
    link = str(client.call("asking for the invite link", "api/invite")["invite_url"])
    return link if "://" in link else f"{client.connection.url}/{link.removeprefix('/')}"


def names(client: Client) -> dict[int, str]:
    """Give the name of every member, by number: the e-mail address, which is unique."""
    return {int(user["id"]): str(user["email"]) for user in client.call("listing the members", "api/users")}
