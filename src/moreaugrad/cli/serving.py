"""The command `serve`."""

from __future__ import annotations

import ctypes
import socket
import webbrowser
from contextlib import suppress

from moreaugrad.cli import screen
from moreaugrad.cli.commands import CommonOptions
from moreaugrad.cli.interruption import DONE, Interrupted, interruptible
from moreaugrad.runs.plans.option import given_options
from moreaugrad.runs.plans.serve import ServePlan

MISSING = "serve: expected the packages of the live explorer: pip install 'moreaugrad[explorer]'"


M_ARENA_MAX = -8
"""Of glibc's mallopt."""


def _share_memory() -> None:
    """Otherwise glibc keeps the memory of a pass for each of the threads that took a turn."""
    with suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def serve(plan: ServePlan, output: CommonOptions) -> int:
    """Answers until Ctrl-C. Errors: ValueError for a missing extra, and a port that is taken."""
    try:
        import uvicorn

        from moreaugrad.explorer.server import Server
    except ImportError as error:
        raise ValueError(f"{MISSING} ({error})") from error
    from moreaugrad.explorer.core import Explorer
    from moreaugrad.runs.maps.setup import opened
    from moreaugrad.runs.network import Network
    from moreaugrad.runs.plans.explain import ARRAYS
    from moreaugrad.runs.plans.texts import TextPlan

    _share_memory()
    asked = plan.inputs
    some = bool(plan.data.files or plan.data.source or asked.given_texts)
    if some:
        asked.check_options()
    if asked.kind == ARRAYS:
        asked = asked.with_arrays()
    network = Network.load(asked.model, asked.compute)
    asked = asked.taken_by(network.model.array is not None)
    if network.model.tokenizer is None:  # others read texts that are opened in the page
        asked.check_options()
    needed = some or network.model.array is not None
    explorer = Explorer(
        network=network, inputs=opened(asked, network) if needed else None,
        options=given_options(plan.model) | given_options(plan.compute),
        text=asked.text or TextPlan(),
    )  # fmt: skip
    server = Server(explorer, plan.host)
    with _bound(plan.host, plan.port) as listening:
        named = f"[{plan.host}]" if ":" in plan.host else plan.host
        address = f"http://{named}:{listening.getsockname()[1]}/{server.token}/"
        if not server.local:
            screen.note(
                f"warning: {plan.host} can be reached from other machines: whoever knows the "
                "address uses this network and this computer, and nothing is encrypted"
            )
        screen.results().print(address, markup=False, soft_wrap=True)
        if not output.quiet:
            screen.errors().print("The explorer is at this address; Ctrl-C ends it.", style="dim")
        if output.open:
            webbrowser.open(address)
        config = uvicorn.Config(
            server.app, log_level="warning", server_header=False, timeout_graceful_shutdown=1,
            limit_concurrency=256, lifespan="off",
        )  # fmt: skip
        with suppress(Interrupted), interruptible():
            uvicorn.Server(config).run([listening])
    return DONE


def _bound(host: str, port: int) -> socket.socket:
    """Errors: ValueError where nothing can listen there."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        return socket.create_server(found[4][:2], family=found[0], backlog=64)
    except OSError as error:
        raise ValueError(
            f"host and port: cannot listen at {host}:{port} ({error.strerror or error}): choose "
            "another --port"
        ) from error
