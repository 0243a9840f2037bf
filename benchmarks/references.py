"""The problem whose solution everything is measured against, long runs of it, and its floor.

Written apart from the library's solver: only the network passes, the keyed noise and the soft
threshold are shared with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import moreaugrad
from benchmarks.cache import Cache, Piece, digest_of
from benchmarks.measures import jackknife
from benchmarks.subjects import Subject
from moreaugrad import L1, Noise, PublishedMoreauGrad, Score, SparseMoreauGrad
from moreaugrad.score.bound_score import BoundScore

SEED_A, SEED_B, SEED_FLOOR, SEED_PUBLISHED, SEED_OURS = 1001, 1002, 2001, 3001, 0
"""All different, so that no two results share a draw."""

DRAWS, BLOCKS = 32, 8
"""Of a long run: fresh antithetic draws a step, and blocks of its tail for its own error."""

PACKAGE = Path(moreaugrad.__path__[0])
PASSES = [PACKAGE / "score"]
SOLVER = [*PASSES, PACKAGE / "solvers", PACKAGE / "explainers", PACKAGE / "penalties"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Sparse MoreauGrad of the logit; sigma is a share of each input's range."""

    rho: float = 1.0
    eta: float = 5e-3
    sigma: float = 0.1

    def prox(self, gradient: Tensor) -> Tensor:
        """u = P(-rho g), the displacement that a mean gradient `[B, n]` stands for."""
        return L1(self.eta).prox(-self.rho * gradient, self.rho)

    def map(self, gradient: Tensor) -> Tensor:
        """The map -u / rho: the gradient, its entries shrunk by eta."""
        return -self.prox(gradient) / self.rho

    def bind(self, subject: Subject, inputs: Tensor, seed: int) -> BoundScore:
        size, noise = subject.chunk, Noise(seed)
        score = Score(subject.fast, batch_size=size, sigma=self.sigma, noise=noise)
        return score.bind(inputs)


@dataclass(frozen=True, kw_only=True, eq=False)
class Reference:
    """Maps of two independent long runs, `[B, n]`, and of their mean; the runs' own errors."""

    a: Tensor
    b: Tensor
    mean: Tensor
    gradient: Tensor
    split: Tensor
    """`[B]`: the two runs are farther apart than three times their errors: two solutions."""


def step_length(step: int) -> float:
    """alpha_k: decaying, because a constant one leaves a bias that both runs would share."""
    return float(0.7 * (1 + step / 10) ** -0.6)


def long_run(bound: BoundScore, setting: Setting, evaluations: int, opposite: bool) -> Piece:
    """y <- y + alpha_k (-rho g(P(y)) - y); the mean of g after the first quarter, and its error.

    It starts at 0 or, `opposite`, as far away on the solution's other side: what two runs still
    have of their starts then does not agree.
    """
    steps = evaluations // DRAWS
    skipped = steps // 4
    length = (steps - skipped) // BLOCKS
    skipped = steps - length * BLOCKS
    y = torch.zeros_like(bound.origin)
    if opposite:
        extra = range(steps * DRAWS, (steps + 1) * DRAWS)
        y = -2 * setting.rho * bound.value_and_grad(y, extra)[1]
    blocks = y.new_zeros(BLOCKS, *y.shape)
    for step in range(steps):
        draws = range(step * DRAWS, (step + 1) * DRAWS)
        _, gradient = bound.value_and_grad(L1(setting.eta).prox(y, setting.rho), draws)
        y = y + step_length(step) * (-setting.rho * gradient - y)
        if step >= skipped:
            blocks[(step - skipped) // length] += gradient / length
    return {"gradient": blocks.mean(0), "error": jackknife(blocks, setting.map)}


def references(
    subject: Subject, setting: Setting, cache: Cache, names: Sequence[str], evaluations: int
) -> Reference:
    """Two runs with seeds of their own for each image."""

    def run(seed: int) -> Piece:
        def compute(some: Sequence[str]) -> list[Piece]:
            bound = setting.bind(subject, subject.inputs(some), seed)
            return apart(long_run(bound, setting, evaluations, seed == SEED_B))

        settings = _key(subject, setting, PASSES) | {
            "evaluations": evaluations, "draws": DRAWS, "blocks": BLOCKS, "seed": seed,
        }  # fmt: skip
        return cache.fetch(
            f"{subject.name}-reference", settings, names, compute, at_once=at_once(subject, DRAWS)
        )

    one, two = run(SEED_A), run(SEED_B)
    a, b = setting.map(one["gradient"]), setting.map(two["gradient"])
    gradient = (one["gradient"] + two["gradient"]) / 2
    expected = torch.hypot(one["error"] * a.norm(dim=1), two["error"] * b.norm(dim=1))
    return Reference(
        a=a,
        b=b,
        mean=setting.map(gradient),
        gradient=gradient,
        split=(a - b).norm(dim=1) > 3 * expected,
    )


def floor_gradients(
    subject: Subject,
    setting: Setting,
    cache: Cache,
    names: Sequence[str],
    reference: Reference,
    evaluations: int,
    block: int,
    key: int,
) -> Tensor:
    """Mean gradients at the reference solution over blocks of fresh draws, `[B, K, n]`.

    `key` is the reference's own evaluations, on which this depends.
    """
    solution = dict(zip(names, setting.prox(reference.gradient), strict=True))

    def compute(some: Sequence[str]) -> list[Piece]:
        bound = setting.bind(subject, subject.inputs(some), SEED_FLOOR)
        u = torch.stack([solution[name] for name in some])
        starts = range(0, evaluations, block)
        means = [bound.value_and_grad(u, range(at, at + block))[1] for at in starts]
        return apart({"gradients": torch.stack(means, 1)})

    settings = _key(subject, setting, PASSES) | {
        "evaluations": evaluations, "block": block, "reference": key, "seed": SEED_FLOOR,
    }  # fmt: skip
    pieces = cache.fetch(
        f"{subject.name}-floor", settings, names, compute, at_once=at_once(subject, DRAWS)
    )
    return pieces["gradients"]


def ours(
    subject: Subject,
    setting: Setting,
    cache: Cache,
    names: Sequence[str],
    *,
    evaluations: int | None = None,
    tolerance: float = 0.1,
    dtype: torch.dtype = torch.float32,
) -> Piece:
    """The library's `map` `[B, n]`, stated `error` and `evaluations` for each image.

    With `evaluations` it does not stop before; without, its stated error stops it at `tolerance`.
    """
    chosen = {"tolerance": tolerance}
    if evaluations is not None:
        chosen = {"tolerance": 1e-9, "max_evaluations": evaluations}
    options = {**asdict(setting), **chosen, "seed": SEED_OURS, "batch_size": subject.chunk}

    def compute(some: Sequence[str]) -> list[Piece]:
        inputs = subject.inputs(some)
        target = subject.predictions(inputs)
        model = subject.fast
        if dtype != torch.float32:
            model, inputs = subject.reduced(dtype), inputs.to(dtype)
        found = SparseMoreauGrad(model, **options).explain(inputs, target=target)
        return apart(
            {
                "map": found.parts[0].flatten(1).float(),
                "error": found.error.float(),
                "evaluations": found.evaluations.float(),
            }
        )

    settings = _key(subject, setting, SOLVER) | {"options": options, "dtype": str(dtype)}
    return cache.fetch(
        f"{subject.name}-ours", settings, names, compute, at_once=at_once(subject, 16)
    )


def published(
    subject: Subject, setting: Setting, cache: Cache, names: Sequence[str], steps: int
) -> Tensor:
    """The published algorithm's output as a gradient, `[B, n]`."""
    options = {
        **asdict(setting), "steps": steps, "sign": "gradient", "seed": SEED_PUBLISHED,
        "batch_size": subject.chunk,
    }  # fmt: skip

    def compute(some: Sequence[str]) -> list[Piece]:
        found = PublishedMoreauGrad(subject.fast, **options).explain(subject.inputs(some))
        return apart({"map": found.parts[0].flatten(1)})

    sources = [*PASSES, PACKAGE / "explainers" / "published.py"]
    pieces = cache.fetch(
        f"{subject.name}-published",
        _key(subject, setting, sources) | {"options": options},
        names,
        compute,
        at_once=at_once(subject, DRAWS),
    )
    return pieces["map"]


def apart(batch: Piece) -> list[Piece]:
    """One piece for each image of a batch."""
    count = len(next(iter(batch.values())))
    return [{key: value[i].clone() for key, value in batch.items()} for i in range(count)]


def at_once(subject: Subject, draws: int) -> int:
    """Images that fill two chunks: what an interruption loses stays small."""
    return max(1, 2 * subject.chunk // draws)


def _key(subject: Subject, setting: Setting, sources: list[Path]) -> dict[str, Any]:
    return {
        "network": subject.name,
        "weights": subject.weights,
        "setting": asdict(setting),
        "sources": digest_of(*sources, Path(__file__)),
    }
