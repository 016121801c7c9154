"""What visitors cannot ask of the page's server: files of other hosts, and files of its machine.

Gradio takes addresses where files are meant (``/gradio_api/file=https://...``, a recording whose path is a URL) and
fetches them itself. This page asks nothing of any other host, so such requests are refused before Gradio sees them. So
are paths outside the folder of uploads: Gradio refuses these, too, but without a word.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

from gradio.utils import abspath, get_upload_folder, is_in_or_equal

MAX_BODY = 1_000_000
"""Bytes of a request that is no upload: all that the page sends are settings and the names of uploaded files."""
FOREIGN = "this page fetches nothing from other hosts: upload the file instead"
NOT_UPLOADED = "this page reads only what was uploaded to it: upload the file first"
_URL = re.compile(r"\s*https?:", re.IGNORECASE)
_FETCHES = re.compile(r"/(proxy=|file[=/]\s*https?:)", re.IGNORECASE)

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class OwnFilesOnly:
    """ASGI middleware around ``app``."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif _FETCHES.search(scope["path"]):
            await _refuse(send, 403, FOREIGN)
        elif scope["method"] != "POST" or scope["path"].endswith("/gradio_api/upload"):
            await self._app(scope, receive, send)
        else:
            body = await _body(receive)
            if body is None:
                await _refuse(send, 413, f"a request of more than {MAX_BODY} bytes: upload recordings as files")
            elif reason := _why_not(body):
                await _refuse(send, 400, reason)
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


def _why_not(body: bytes) -> str | None:
    """Why a file that the JSON names cannot be had; None where all can."""
    try:
        values = [json.loads(body)]
    except (ValueError, RecursionError):  # no JSON: Gradio refuses it
        return None
    while values:
        value = values.pop()
        if isinstance(value, dict):
            if isinstance(path := value.get("path"), str):
                if _URL.match(path):
                    return FOREIGN
                if not _is_uploaded(path):
                    return NOT_UPLOADED
            values += value.values()
        elif isinstance(value, list):
            values += value
    return None


def _is_uploaded(path: str) -> bool:
    try:
        place = abspath(path)
        return is_in_or_equal(place, get_upload_folder()) and not place.is_dir()
    except (OSError, ValueError, RuntimeError):  # a zero byte, a loop of links
        return False


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
