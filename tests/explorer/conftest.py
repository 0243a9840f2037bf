"""An explorer of small images, and its page on a port of this machine."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import uvicorn

from explored import CELL
from moreaugrad.explorer.core import Explorer
from moreaugrad.explorer.server import Server
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.common import ComputePlan, DataPlan, ModelPlan
from moreaugrad.runs.plans.option import given_options

MODEL = ModelPlan(name="builtin")


@pytest.fixture(scope="session")
def network() -> Network:
    return Network.load(MODEL, ComputePlan(threads=1))


@pytest.fixture
def explorer(network: Network) -> Explorer:
    inputs = Inputs.open(DataPlan(files=(str(CELL),)), 0, network)
    return Explorer(network=network, inputs=inputs, options=given_options(MODEL))


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


@pytest.fixture
def address(explorer: Explorer) -> Iterator[str]:
    with serving(explorer) as found:
        yield found
