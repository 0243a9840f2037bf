"""Checks by trial passes that a model's output is a function of each sample alone.

A map of a sample has a meaning only if it is. Some causes can be seen on modules (see `checks`),
most cannot: random numbers and batch statistics within a function, scripted code, a graph.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from random import getstate, setstate
from random import seed as seed_python
from typing import Any

import numpy as np
import torch
from numpy.random import get_state, set_state
from numpy.random import seed as seed_numpy
from torch import Tensor, nn
from torch.random import get_rng_state, set_rng_state

from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.checks import ModelError
from moreaugrad.score.forward import activations, out_of_memory


def _generators(device: torch.device) -> list[Any]:
    """States of the global generators: of Python, of numpy, of torch on the CPU and on a device."""
    states = [getstate(), get_state(legacy=True), get_rng_state()]  # noqa: NPY002
    if device.type != "cpu":
        states.append(torch.get_device_module(device).get_rng_state())
    return states


def _restore(device: torch.device, states: list[Any]) -> None:
    of_python, of_numpy, of_torch, *others = states
    setstate(of_python)
    set_state(of_numpy)  # noqa: NPY002
    set_rng_state(of_torch)
    for other in others:
        torch.get_device_module(device).set_rng_state(other)


def _unchanged(device: torch.device, states: list[Any]) -> bool:
    """Whether no random number was drawn since."""
    of_python, of_numpy, *of_torch = _generators(device)
    return (
        of_python == states[0]
        and all(map(np.array_equal, of_numpy, states[1]))
        and all(map(torch.equal, of_torch, states[2:]))
    )


@contextmanager
def untouched(device: torch.device) -> Iterator[None]:
    """Restores the states of the global random generators on exit."""
    before = _generators(device)
    try:
        yield
    finally:
        _restore(device, before)


@contextmanager
def seeded(device: torch.device, seed: int) -> Iterator[None]:
    """While open, the global random generators start from this seed; they are restored on exit.

    For code of others, which draws from them. seed: below 2^32.
    """
    with untouched(device):
        seed_python(seed)
        seed_numpy(seed)  # noqa: NPY002
        torch.default_generator.manual_seed(seed)
        if device.type != "cpu":
            torch.get_device_module(device).manual_seed(seed)
        yield


CLOSE = 1e-5
"""Largest difference of two outputs, as a fraction of their size, that counts as equal."""
FAR, FAR_REDUCED = 0.01, 0.1
"""Differences too large for rounding, in single precision and in half precisions."""
NUDGES = (-3, -2, -1, 1, 2, 3)
"""Changes of the input, in units of its rounding, to measure the rounding of an output."""
ROUNDING = 4
"""A difference of up to this many times the largest such change counts as rounding."""
REPEATS = 8
"""Passes of a model that draws random numbers, to test whether its output depends on them."""

ANYWAY = "check=False explains it anyway"


@dataclass(frozen=True, eq=False)
class _Probe:
    """A pass with `points` `[m, n]` as inputs of samples `rows` `[m]`.

    The outputs at `places` are known already.
    """

    points: Tensor
    rows: Tensor
    places: tuple[int, ...]

    @classmethod
    def of(cls, bound: BoundScore, rows: list[int], places: tuple[int, ...]) -> _Probe:
        index = torch.tensor(rows, device=bound.origin.device)
        return cls(bound.origin[index], index, places)


def check_behaviour(bound: BoundScore, outputs: Tensor, *, any_size: bool) -> int:
    """Refuses a model that is random, has a state, couples samples, or changes its input.

    The first and the last sample of a pass are computed again, each alone and with gradients
    recorded; a single sample is computed together with another input. If an output differs by more
    than rounding, further passes find the cause.

    outputs `[B, K, ...]`: the model's outputs at the bound inputs, computed without gradients.
    any_size: also refuse a model that takes no other number of samples than it was given.
    Returns the bytes that a row keeps for its gradient, 0 if that could not be measured.
    Errors: ModelError with the cause.
    """
    device = bound.origin.device
    before = _generators(device)
    size = 0
    for probe, instead in _probes(bound):
        try:
            found, kept = _recorded(bound, probe)
            size = max(size, kept)
            _compare(bound, outputs, probe, found)
        except _Differs as found:
            raise ModelError(str(found)) from None
        except (ModelError, RuntimeError, MemoryError) as error:
            if not out_of_memory(error) and (any_size or not isinstance(error, ModelError)):
                raise
            _compare_instead(bound, outputs, instead, error)
    if not _unchanged(device, before):
        _check_draws(bound)
    return size


class _Differs(ModelError):
    pass


def _width(bound: BoundScore) -> int:
    """Samples in the first pass."""
    return min(len(bound), bound.chunks.size)


def _probes(bound: BoundScore) -> Iterator[tuple[_Probe, _Probe]]:
    """Passes to compare, each with a substitute for models that refuse its number of samples."""
    batch, width = len(bound), _width(bound)
    alone = _Probe.of(bound, [0], (0,))
    if batch == 1:
        pair = torch.cat((bound.origin, 2 * bound.origin + 1))
        yield _Probe(pair, alone.rows.expand(2), (0,)), alone
    elif width > 1:
        for row in (0, width - 1):
            yield _Probe.of(bound, [row], (0,)), _Probe.of(bound, [row] * width, (row,))
    elif any(isinstance(arg, Tensor) and arg.ndim and len(arg) == batch for arg in bound.args):
        yield _Probe.of(bound, [0, batch - 1], (0, 1)), alone
    else:
        yield alone, alone


def _recorded(bound: BoundScore, probe: _Probe) -> tuple[Tensor, int]:
    """The outputs, with gradients recorded, and the bytes that a row keeps for its gradient."""
    try:
        with activations(bound.model) as sizes:
            outputs = _outputs(bound, probe, gradients=True)
    except ModelError as error:
        # Models that use torch.func cannot be measured in this way.
        if "saved tensor hooks" not in str(error):
            raise
        return _outputs(bound, probe, gradients=True), 0
    return outputs, sum(sizes) // len(probe.rows)


def _outputs(bound: BoundScore, probe: _Probe, *, gradients: bool) -> Tensor:
    """The model's outputs, in double precision. Errors: ModelError where its input changed."""
    with torch.set_grad_enabled(gradients):
        parts = tuple(
            part.detach().clone().requires_grad_(gradients)
            for part in bound.layout.restore(probe.points)
        )
        outputs = bound.outputs_of(parts, probe.rows)
    for part, given in zip(parts, bound.layout.restore(probe.points), strict=True):
        if not torch.equal(part, given) and bool(torch.isfinite(given).all()):
            raise _Differs(
                "the model changes its input in place, so the gradient would be that of another "
                "input: begin its forward with x = x.clone(), or compute out of place"
            )
    return outputs.detach().double()


def _compare(bound: BoundScore, outputs: Tensor, probe: _Probe, found: Tensor) -> None:
    for place in probe.places:
        row = int(probe.rows[place])
        known, scale = outputs[row].double(), outputs[[row, (row + 1) % len(outputs)]].double()
        gap = _gap(found[place], known, scale)
        if gap > CLOSE:
            _diagnose(bound, outputs, probe, place, found[place], gap)


def _compare_instead(
    bound: BoundScore, outputs: Tensor, probe: _Probe, error: BaseException
) -> None:
    try:
        found = _outputs(bound, probe, gradients=False)
    except _Differs as differs:
        raise ModelError(str(differs)) from None
    except ModelError:
        raise error from None
    try:
        _compare(bound, outputs, probe, found)
    except _Differs as differs:
        raise ModelError(f"{differs} (a sample alone: {error})") from error


def _diagnose(
    bound: BoundScore, outputs: Tensor, probe: _Probe, place: int, recorded: Tensor, gap: float
) -> None:
    """Raises the reason why `recorded` differs from the known output, unless it is rounding."""
    device = bound.origin.device
    start = _generators(device)
    once, twice = (_outputs(bound, probe, gradients=False)[place] for _ in range(2))
    if (moved := _gap(once, twice, once)) > CLOSE:
        _restore(device, start)
        again = _outputs(bound, probe, gradients=False)[place]
        _restore(device, start)
        if _gap(again, _outputs(bound, probe, gradients=False)[place], again) <= CLOSE:
            raise _random(bound.model, moved)
        raise _Differs(
            "expected a model whose output is a function of its input alone, but it changes from "
            f"call to call: the same sample twice differs by {moved:.1%}, with the same random "
            "numbers too. Look for a counter, a cache, a hidden state that is kept, or a random "
            f"generator of its own; {ANYWAY}"
        )
    if not _unchanged(device, start):
        _check_draws(bound)
    far = too_far(bound)
    if gap > far:
        far = max(far, ROUNDING * _rounding(bound, probe, place, once))
    if (moved := _gap(once, recorded, once)) > far:
        raise _Differs(
            "the model computes another function under torch.no_grad() than where gradients are "
            f"recorded: outputs of the same sample differ by {moved:.1%}; {ANYWAY}"
        )
    row, width = int(probe.rows[place]), _width(bound)
    # Passes of one size round alike, so a difference here comes from the other samples alone.
    seen = outputs[row].double() if width > 1 else once
    copies = _Probe.of(bound, [row] * max(width, len(probe.rows)), ())
    try:
        alike = _outputs(bound, copies, gradients=False)[row if width > 1 else place]
        moved = _gap(seen, alike, seen)
    except ModelError:  # only the comparison above remains
        moved = 0.0
    if moved > CLOSE or gap > far:
        raise _Differs(
            "expected a model whose samples do not depend on each other, but outputs of the same "
            f"sample differ by {max(moved, gap):.1%} in another batch. Look for statistics over "
            "the batch (batch normalisation in training mode: call model.eval(); a mean or maximum "
            "over dimension 0), a graph, attention over the wrong dimension, and "
            "additional_forward_args that all samples use and whose length is that of the batch. "
            f"With batch_size=1 each pass has one sample; {ANYWAY}"
        )


def _rounding(bound: BoundScore, probe: _Probe, place: int, once: Tensor) -> float:
    """Change of the output when inputs change by their own rounding.

    It can be large: a softmax of logits in the millions has no certain digit.
    """
    eps = max(torch.finfo(dtype).eps for dtype in bound.layout.dtypes)
    nudged = (replace(probe, points=probe.points * (1 + step * eps)) for step in NUDGES)
    return max(_gap(_outputs(bound, other, gradients=False)[place], once, once) for other in nudged)


def too_far(bound: BoundScore) -> float:
    """`FAR`, or `FAR_REDUCED` if the model is known to compute in less than single precision."""
    return FAR_REDUCED if bound.reduced else FAR


def _check_draws(bound: BoundScore) -> None:
    """Refuses a model whose output depends on the random numbers that it draws."""
    model = bound.model
    if isinstance(model, nn.Module) and any(
        getattr(part, "training", False) for part in model.modules()
    ):
        raise _random(model, None)
    probe = _Probe.of(bound, [0] * min(2, _width(bound)), ())
    first = _outputs(bound, probe, gradients=False)
    for _ in range(REPEATS):
        if (moved := _gap(first, _outputs(bound, probe, gradients=False), first)) > CLOSE:
            raise _random(model, moved)


def _random(model: object, moved: float | None) -> ModelError:
    seen = "it draws random numbers" if moved is None else f"two passes differ by {moved:.1%}"
    training = [
        f"{name or 'it'} ({type(part).__name__})"
        for name, part in (model.named_modules() if isinstance(model, nn.Module) else ())
        if getattr(part, "training", False) and not list(part.children())
    ]
    if training:
        remedy = f"{training[0]} is in training mode: call model.eval()"
    else:
        remedy = (
            "call model.eval(), and look for dropout that stays on (F.dropout without "
            "training=self.training) and other random numbers in its forward"
        )
    return _Differs(
        f"expected a model whose output is a function of its input, but it is random: {seen}; "
        f"{remedy}; {ANYWAY}"
    )


def _gap(a: Tensor, b: Tensor, scale: Tensor) -> float:
    """The largest difference as a fraction of the largest number; equal infinities are equal."""
    if a.shape != b.shape:
        return torch.inf
    difference = torch.where((a == b) | (a.isnan() & b.isnan()), 0.0, (a - b).abs())
    sizes = torch.cat([part.flatten().abs() for part in (a, b, scale)])
    largest = torch.where(torch.isfinite(sizes), sizes, 0.0).max()
    found = float((difference / largest.clamp_min(torch.finfo(largest.dtype).tiny)).max())
    return torch.inf if found != found else found
