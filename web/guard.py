"""What visitors cannot ask of the page's server: that it fetches something from another host for them.

Gradio takes addresses where files are meant (``/gradio_api/file=https://...``, a recording whose path is a URL) and
fetches them itself. This page asks nothing of any other host, so such requests are refused before Gradio sees them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

MAX_BODY = 1_000_000
"""Bytes of a request that is no upload: all that the page sends are settings and the names of uploaded files."""
REFUSAL = "this page fetches nothing from other hosts: upload the file instead"
_URL = re.compile(r"\s*https?:", re.IGNORECASE)
_FETCHES = re.compile(r"/(proxy=|file[=/]\s*https?:)", re.IGNORECASE)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class OwnHostOnly:
    """ASGI middleware around ``app``."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _FETCHES.search(scope["path"]):
            await _refuse(send, 403, REFUSAL)
        elif scope["method"] != "POST" or scope["path"].endswith("/gradio_api/upload"):
            await self._app(scope, receive, send)
        else:
            body = await _body(receive)
            if body is None:
                await _refuse(send, 413, f"a request of more than {MAX_BODY} bytes: upload recordings as files")
            elif _names_a_url(body):
                await _refuse(send, 400, REFUSAL)
            else:
                await self._app(scope, _replayed(body, receive), send)


async def _body(receive: Receive) -> bytes | None:
    """A request's whole body; None where it is too long."""
    parts = []
    length = 0
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        length += len(parts[-1])
        if length > MAX_BODY:
            return None
        if not message.get("more_body"):
            return b"".join(parts)


def _replayed(body: bytes, receive: Receive) -> Receive:
    """The body once more, then what comes after it."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _names_a_url(body: bytes) -> bool:
    """Whether a file's path in the JSON is an address."""
    try:
        values = [json.loads(body)]
    except (ValueError, RecursionError):  # no JSON: Gradio refuses it
        return False
    while values:
        value = values.pop()
        if isinstance(value, dict):
            if isinstance(path := value.get("path"), str) and _URL.match(path):
                return True
            values += value.values()
        elif isinstance(value, list):
            values += value
    return False


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
