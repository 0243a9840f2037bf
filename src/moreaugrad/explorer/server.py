"""`moreaugrad serve`: the explorer as a page on this machine."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import secrets
import struct
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from typing import Any, ClassVar

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from moreaugrad.explorer.core import UPLOAD_LIMIT, Explorer, Message
from moreaugrad.explorer.turns import Gone
from moreaugrad.registry import first_line

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' "
    "blob: data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin", "Cross-Origin-Opener-Policy": "same-origin",
}  # fmt: skip
TYPES = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
PAGE = "index.html"
STATIC = (PAGE, "explorer.css", "explorer.js", "maps.js", "page.js")
AT_ONCE = 32
"""Requests that are worked on at a time; the device serves one pass of one of them."""
NAMES = ("localhost", "127.0.0.1", "::1")


def packed(message: Message) -> bytes:
    """The length of the header, that of the bytes, the header as JSON, the bytes."""
    header, data = json.dumps(message[0]).encode(), message[1]
    return struct.pack("<II", len(header), len(data)) + header + data


class Server:
    """An explorer as an ASGI application. Without the token, and from other sites, nothing is
    answered. host: which it is bound to."""

    TOKEN_BYTES: ClassVar[int] = 16

    def __init__(self, explorer: Explorer, host: str = NAMES[0]) -> None:
        self.explorer, self.local = explorer, is_local(host)
        self.token = secrets.token_urlsafe(self.TOKEN_BYTES)
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="explorer")
        self.app = Starlette(routes=[
            Route("/{token}/api", self._api, methods=["POST"]),
            Route("/{token}/{name}", self._file),
            Route("/{token}/", self._file),
        ])  # fmt: skip

    def _refusal(self, request: Request) -> Response | None:
        """Of who does not know the token, names this machine otherwise, or is another site."""
        token, host = request.path_params["token"], request.headers.get("host", "")
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdecimal() else host
        if self.local and name.strip("[]").lower() not in NAMES:
            return _text("unknown host", 421)
        if not secrets.compare_digest(token.encode(), self.token.encode()):
            return _text("open the whole address that `moreaugrad serve` has printed", 403)
        origin = request.headers.get("origin")
        if origin is not None and origin.partition("://")[2] != host:
            return _text("requests of other sites are refused", 403)
        return None

    async def _file(self, request: Request) -> Response:
        name = request.path_params.get("name", PAGE)
        refusal = self._refusal(request)
        if refusal is not None or name not in STATIC:
            return refusal or _text("there is no such file", 404)
        data = files("moreaugrad.explorer").joinpath("static", name).read_bytes()
        return Response(data, headers=HEADERS, media_type=TYPES[name.rpartition(".")[2]])

    async def _api(self, request: Request) -> Response:
        refusal = self._refusal(request)
        if refusal is not None:
            return refusal
        body = bytearray()
        try:
            asked = json.loads(request.query_params.get("asked", ""))
            async for part in request.stream():
                body += part
                if len(body) > UPLOAD_LIMIT:
                    return _text(f"expected at most {UPLOAD_LIMIT >> 20} MiB", 413)
        except (ValueError, RecursionError):
            return _text("expected a request in JSON", 400)
        except ClientDisconnect:
            return Response(status_code=499)
        user = f"{request.client.host if request.client else ''} {request.query_params.get('user')}"
        answers = self._answers(asked, bytes(body), user)
        return StreamingResponse(answers, headers=HEADERS, media_type="application/octet-stream")

    async def _answers(self, asked: Any, body: bytes, user: str) -> AsyncIterator[bytes]:
        """The packed messages. When the reader leaves, the work ends with its next pass."""
        loop, gone = asyncio.get_running_loop(), threading.Event()
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()

        def put(data: bytes | None) -> None:
            loop.call_soon_threadsafe(queue.put_nowait, data)

        def work() -> None:
            try:
                for message in self.explorer.answer(asked, body, user, gone.is_set):
                    put(packed(message))
            except Gone:
                pass
            except ValueError as error:
                put(packed(({"refused": str(error)}, b"")))
            except Exception as error:  # models are code of others, which may raise anything
                put(packed(({"refused": first_line(error)}, b"")))
            finally:
                put(None)

        self._pool.submit(work)
        try:
            while (data := await queue.get()) is not None:
                yield data
        finally:
            gone.set()


def _text(words: str, code: int) -> Response:
    return Response(words, code, HEADERS, "text/plain")


def is_local(host: str) -> bool:
    """Whether only this machine can reach what is bound to it."""
    try:
        return host == NAMES[0] or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
