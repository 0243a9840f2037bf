"""The explorer served on a port of this machine, its answers as a page reads them, and its page."""

import json
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import uvicorn

from browser import Browser
from moreaugrad.explorer.core import Explorer
from moreaugrad.explorer.server import Server

CELL = Path(__file__).parents[1] / "docs" / "images" / "cell.png"


@dataclass
class Frame:
    """A frame as a page sees it."""

    header: dict[str, Any]
    arrays: dict[str, np.ndarray[Any, Any]]


def frames(messages: Iterator[tuple[dict[str, Any], bytes]], shape: Any = (3, 64, 64)) -> Any:
    """The recipes and the frames of an answer."""
    (recipes, _), *found = messages
    made = []
    for header, data in found:
        parts = np.frombuffer(data, np.float32).reshape(-1, *shape)
        made.append(Frame(header, dict(zip(header["arrays"], parts, strict=True))))
    return recipes, made


def unpacked(data: bytes) -> list[tuple[dict[str, Any], bytes]]:
    found = []
    while data:
        head, size = struct.unpack("<II", data[:8])
        found.append((json.loads(data[8 : 8 + head]), data[8 + head : 8 + head + size]))
        data = data[8 + head + size :]
    return found


@contextmanager
def serving(explorer: Explorer) -> Iterator[str]:
    """The address of the page while it is served."""
    server = Server(explorer)
    config = uvicorn.Config(server.app, log_level="warning", lifespan="off",
                            timeout_graceful_shutdown=1)  # fmt: skip
    running = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=running.run, args=([listening],))
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/{server.token}/"
        running.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


PANE = "explorer.panes[0]"
COMPLAINTS = (
    "Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded",
    "Page.javascriptDialogOpening",
)  # fmt: skip


def until(page: Browser, expression: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not page.ask(f"!!({expression})"):
        assert time.monotonic() < end, expression
        time.sleep(0.02)


def settled(page: Browser, condition: str = "true") -> None:
    """Waits until the first pane has its last frame, and more."""
    until(page, f"({condition}) && {PANE}?.frame?.done && !{PANE}.abort")


def text(page: Browser, name: str) -> str:
    found: str = page.ask(f"explorer.get('{name}').textContent")
    return found


def status(page: Browser) -> str:
    found: str = page.ask(f"{PANE}.get('status').textContent")
    return found


def complaints(page: Browser) -> list[Any]:
    page.ask("1")
    return [event["params"] for event in page.events if event["method"] in COMPLAINTS]


def slide(page: Browser, name: str, value: float) -> float:
    """Milliseconds that the page takes to answer."""
    found: float = page.ask(
        f"""(() => {{ const input = explorer.get('{name}'), begun = performance.now();
        input.value = {value}; input.dispatchEvent(new Event('input'));
        return performance.now() - begun; }})()"""
    )
    return found


def choose(page: Browser, name: str, value: str) -> None:
    page.ask(
        f"""(() => {{ const input = explorer.get('{name}');
        input.value = {json.dumps(value)};
        for (const kind of ['input', 'change']) input.dispatchEvent(new Event(kind)); }})()"""
    )
