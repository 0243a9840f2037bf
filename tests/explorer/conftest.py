"""An explorer of small images, and its page on a port of this machine."""

from collections.abc import Iterator

import pytest

from explored import CELL, serving
from moreaugrad.explorer.core import Explorer
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


@pytest.fixture
def address(explorer: Explorer) -> Iterator[str]:
    with serving(explorer) as found:
        yield found
