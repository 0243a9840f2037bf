"""The global random generators: read, compared and put back, never drawn from."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import getstate, setstate
from typing import Any

import numpy as np
import torch
from numpy.random import get_state, set_state
from torch import Tensor
from torch.random import get_rng_state, set_rng_state


@dataclass(frozen=True, eq=False)
class GeneratorStates:
    """Those of Python's, numpy's and torch's global generators, torch's on one device too."""

    device: torch.device
    of_python: Any
    of_numpy: Any
    of_torch: tuple[Tensor, ...]

    @classmethod
    def now(cls, device: torch.device) -> GeneratorStates:
        states = [get_rng_state()]
        if device.type != "cpu":
            states.append(torch.get_device_module(device).get_rng_state())
        return cls(device, getstate(), get_state(legacy=True), tuple(states))  # noqa: NPY002

    def same(self, other: GeneratorStates) -> bool:
        """Whether nothing was drawn between the two."""
        return (
            self.of_python == other.of_python
            and all(
                np.array_equal(a, b) for a, b in zip(self.of_numpy, other.of_numpy, strict=True)
            )
            and all(map(torch.equal, self.of_torch, other.of_torch))
        )

    def restore(self) -> None:
        setstate(self.of_python)
        set_state(self.of_numpy)  # noqa: NPY002
        set_rng_state(self.of_torch[0])
        if self.device.type != "cpu":
            torch.get_device_module(self.device).set_rng_state(self.of_torch[1])


@contextmanager
def untouched(device: torch.device) -> Iterator[None]:
    """What is drawn while open leaves no trace."""
    before = GeneratorStates.now(device)
    try:
        yield
    finally:
        before.restore()
