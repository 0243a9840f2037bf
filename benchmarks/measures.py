"""How accuracy is measured: against two independent long runs, whose own noise cancels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def squared_error(c: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """<c - a, c - b> / <a, b>, `[B]`: the squared relative error of c, free of a's and b's noise.

    The mean over independent unbiased a and b is |c - truth|^2 over |truth|^2. A bias that a and b
    share does not cancel. Can be slightly negative for a c that is better than a and b.
    """
    c, a, b = c.double(), a.double(), b.double()
    return ((c - a) * (c - b)).sum(1) / (a * b).sum(1)


def support_iou(c: Tensor, reference: Tensor) -> Tensor:
    """|both non-zero| / |either non-zero|, `[B]`; 1 where both are zero throughout."""
    one, two = c != 0, reference != 0
    either = (one | two).sum(1)
    return torch.where(either == 0, 1.0, (one & two).sum(1) / either.clamp_min(1)).double()


def zeros(c: Tensor) -> Tensor:
    """Fraction of exact zeros, `[B]`."""
    return (c == 0).double().mean(1)


def jackknife(blocks: Tensor, mapped: Callable[[Tensor], Tensor]) -> Tensor:
    """Relative delete-one-block standard error `[B]` of mapped(mean of `blocks` `[K, B, n]`)."""
    count, total = len(blocks), blocks.sum(0)
    whole = mapped(total / count)
    left_out = torch.stack([mapped((total - block) / (count - 1)) for block in blocks])
    spread = (left_out - left_out.mean(0)).square().sum((0, 2))
    return (spread * (count - 1) / count).sqrt() / whole.norm(dim=1)


def evaluations_at(error: float, sizes: Sequence[int], errors: Sequence[float]) -> float:
    """Evaluations at which a measured curve reaches `error`, log-linear between its points.

    Beyond its ends the curve is continued as 1 / sqrt(N).
    """
    points = sorted(zip(sizes, errors, strict=True))
    if error >= points[0][1]:
        return points[0][0] * (points[0][1] / error) ** 2
    for (low, above), (high, below) in itertools.pairwise(points):
        if below <= error:
            share = math.log(above / error) / math.log(above / below)
            return low * (high / low) ** share
    return points[-1][0] * (points[-1][1] / error) ** 2


def within_factor(stated: Tensor, true: Tensor, factor: float = 2.0) -> float:
    """Fraction of samples whose stated error is within a factor of the true one."""
    return ((stated <= factor * true) & (true <= factor * stated)).double().mean().item()


def bounded(stated: Tensor, true: Tensor) -> float:
    """Fraction of samples whose true error is at most the stated one."""
    return (true <= stated).double().mean().item()


def rms(squares: Tensor) -> float:
    """Root of the mean of squared errors (NaN for a mean below zero)."""
    mean = squares.double().mean().item()
    return math.sqrt(mean) if mean >= 0 else math.nan


def roots(squares: Tensor) -> Tensor:
    """Errors from debiased squares; what is below zero counts as zero."""
    return squares.clamp_min(0).sqrt()


def interval(statistic: Callable[[Tensor], float], count: int, repeats: int = 2000) -> list[float]:
    """Bootstrap 95 % interval over `count` samples of a statistic of their indices."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(count, (repeats, count), generator=generator)
    found = torch.tensor([statistic(rows) for rows in chosen], dtype=torch.float64)
    return found.nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """Slope of log(seconds) over log(sizes): 1 is linear."""
    x = torch.tensor(sizes, dtype=torch.float64).log()
    y = torch.tensor(seconds, dtype=torch.float64).log()
    x = x - x.mean()
    return ((x * y).sum() / x.square().sum()).item()


def times_as_fast(seconds: Tensor, base: int, column: int, chosen: Tensor) -> float:
    """The median over some rounds of the seconds `[rounds, ways]` of one way over another's."""
    return float((seconds[chosen, base] / seconds[chosen, column]).median())
