"""`moreaugrad serve`: the explorer as a page on this machine."""

from __future__ import annotations

import asyncio
import json
import secrets
import struct
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from moreaugrad.explorer import static
from moreaugrad.explorer.core import UPLOAD_BYTES, Explorer

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store", "Cross-Origin-Resource-Policy": "same-origin",
}  # fmt: skip
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
FILES = ("index.html", "explorer.html", "explorer.css", "explorer.js", "maps.js", "page.js")
AT_ONCE = 32
"""Requests that are worked on at a time; the device serves one pass of one of them."""
LOCAL = ("localhost", "127.0.0.1", "::1")


class Server:
    """An explorer as an ASGI application. Who does not know the token, comes from another site or,
    of a local `host`, calls this machine by another name, is refused."""

    def __init__(self, explorer: Explorer, host: str = LOCAL[0]) -> None:
        self.explorer, self.local, self.token = explorer, host in LOCAL, secrets.token_urlsafe(16)
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="explorer")
        self.app = Starlette(routes=[
            Route("/{token}/api", self._api, methods=["POST"]),
            Route("/{token}/{name}", self._file), Route("/{token}/", self._file),
        ])  # fmt: skip

    def _refusal(self, request: Request) -> Response | None:
        host, origin = request.headers.get("host", ""), request.headers.get("origin")
        if self.local and request.url.hostname not in LOCAL:
            return _text("this machine has another name", 421)
        if not secrets.compare_digest(request.path_params["token"].encode(), self.token.encode()):
            return _text("open the whole address that `moreaugrad serve` has printed", 403)
        if origin is not None and origin.partition("://")[2] != host:
            return _text("requests of other sites are refused", 403)
        return None

    async def _file(self, request: Request) -> Response:
        name = request.path_params.get("name", FILES[0])
        if (refusal := self._refusal(request)) or name not in FILES:
            return refusal or _text("there is no such file", 404)
        return Response(static(name), 200, HEADERS, TYPES[name.rpartition(".")[2]])

    async def _api(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        body, given = bytearray(), request.query_params
        try:
            asked = json.loads(given.get("asked", ""))
            async for part in request.stream():
                body += part
                if len(body) > UPLOAD_BYTES:
                    return _text(f"expected at most {UPLOAD_BYTES >> 20} MiB", 413)
        except (ValueError, RecursionError, ClientDisconnect):
            return _text("expected a request in JSON", 400)
        user = f"{request.client and request.client.host} {given.get('user', '')[:64]}"
        answers = self._answers(asked, bytes(body), user)
        return StreamingResponse(answers, 200, HEADERS, "application/octet-stream")

    async def _answers(self, asked: Any, body: bytes, user: str) -> AsyncIterator[bytes]:
        """The messages. When the reader leaves, the work ends with its next pass."""
        loop, gone = asyncio.get_running_loop(), threading.Event()
        queue: asyncio.Queue[bytes] = asyncio.Queue()

        def work() -> None:
            for header, data in self.explorer.answer(asked, body, user, gone.is_set):
                text = json.dumps(header).encode()
                packed = struct.pack("<II", len(text), len(data)) + text + data
                loop.call_soon_threadsafe(queue.put_nowait, packed)
            loop.call_soon_threadsafe(queue.put_nowait, b"")

        self._pool.submit(work)
        try:
            while data := await queue.get():
                yield data
        finally:
            gone.set()


def _text(words: str, code: int) -> Response:
    return Response(words, code, HEADERS, "text/plain")
