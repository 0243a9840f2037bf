"""Every contract is asked of every class of the registry, and of each device that is here.

A row that only has other settings of a class is asked for what rows say; one without noise (sigma
= 0) goes through another solver, and so through all contracts.
"""

import pytest
import torch

from moreaugrad import METHODS


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "method" in metafunc.fixturenames:
        first = {row.load(): name for name, row in reversed(list(METHODS.items()))}
        solved = {name for name, row in METHODS.items() if "sigma" in row.settings}
        metafunc.parametrize("method", [m for m in METHODS if m in {*first.values(), *solved}])
    if "row_name" in metafunc.fixturenames:
        metafunc.parametrize("row_name", METHODS)
    if "device" in metafunc.fixturenames:
        metafunc.parametrize("device", ["cpu"] + ["cuda"] * torch.cuda.is_available())
