"""Every contract is asked of every row of the registry, and of each device that is here."""

import pytest
import torch

from moreaugrad import METHODS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "method" in metafunc.fixturenames:
        metafunc.parametrize("method", METHODS)
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", ["cpu"] + ["cuda"] * torch.cuda.is_available())
