"""Who may ask, and how much at once: looked at before anything of a request is read."""

from __future__ import annotations

import base64
import binascii
import hmac
from typing import TYPE_CHECKING

from starlette.datastructures import Headers
from starlette.responses import JSONResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_DRAINED = 8
"""So many times the largest body are read and thrown away, so that a client that is still sending sees the answer."""


class Gate:
    """Lets requests through that know the token and are not too large.

    Args:
        app: what answers them.
        token: asked for as `Authorization: Bearer TOKEN`, or as the password of basic auth under any name; None asks for nothing.
        most_bytes: of a body.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, most_bytes: int) -> None:
        self.app, self.token, self.most_bytes = app, token, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 401 or 413, or pass the request on."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        if self.token is not None and not knows(self.token, headers.get("authorization", "")):
            told = {"detail": "expected the token, as `Authorization: Bearer TOKEN` or as basic auth's password"}
            asked = {"WWW-Authenticate": 'Basic realm="reward model"'}
            await JSONResponse(told, 401, headers=asked)(scope, receive, send)
            return
        body = await self._body(headers.get("content-length", ""), receive)
        if body is None:
            told = {"detail": f"expected at most {self.most_bytes} bytes in a request (--max-body)"}
            await JSONResponse(told, 413, headers={"Connection": "close"})(scope, receive, send)
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self.app(scope, replay, send)

    async def _body(self, length: str, receive: Receive) -> bytes | None:
        """Read a whole body; None where it is too large, or the client has gone."""
        parts: list[bytes] = []
        size, too_large = 0, length.isdecimal() and int(length) > self.most_bytes
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return None
            part = message.get("body", b"")
            size += len(part)
            too_large = too_large or size > self.most_bytes
            if too_large:
                parts.clear()
            else:
                parts.append(part)
            if not message.get("more_body", False) or size > _DRAINED * self.most_bytes:
                return None if too_large else b"".join(parts)


def knows(token: str, authorization: str) -> bool:
    """Say whether an Authorization header holds the token; it takes as long for a wrong one, wherever it is wrong."""
    scheme, _, value = authorization.partition(" ")
    given = value.strip()
    if scheme.lower() == "basic":
        try:
            given = base64.b64decode(given, validate=True).decode().partition(":")[2]
        except (binascii.Error, UnicodeDecodeError):
            return False
    elif scheme.lower() != "bearer":
        return False
    return hmac.compare_digest(given.encode(), token.encode())
