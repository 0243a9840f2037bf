"""The Hessian of the cross-entropy of piecewise linear networks, in closed form.

With z = J x + b the outputs around an input and p = softmax(z), the Hessian is H = J' A J,
A = diag(p) - p p' = E E', E = diag(sqrt p) - p sqrt(p)'. So its eigenvalues are those of the
c x c matrix E' J J' E, and it needs only J J', one entry for each pair of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.curvature.krylov import RitzSpace, eigh
from moreaugrad.curvature.products import GaussNewton, LossModel
from moreaugrad.score import checks
from moreaugrad.score.bound_score import BoundScore, ForwardFunc
from moreaugrad.score.forward import outside_autocast
from moreaugrad.score.inputs import flat_scale
from moreaugrad.score.noise import Noise
from moreaugrad.score.score import Inputs, Score
from moreaugrad.score.targets import TargetLike
from moreaugrad.settings import expect

START = Noise(seed=0x52454C55)
RESOLVED = 1e-10
"""Eigenvalues below this, relative to the largest, count as rounding."""
COLUMNS = 16384
"""Entries of the input whose products are summed in float32; the sums are added in float64."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ReLUHessian:
    """The Hessian of the cross-entropy, for any target, in units of `std` times the input.

    >>> found = mg.relu_hessian(model, x).rank_one_fraction
    """

    eigenvalues: Tensor
    """`[B, m]`, in descending order; m is the number of classes, or of those asked for."""
    residual: Tensor
    """`[B, m]`: the distance of each to an eigenvalue is at most this (0 where it is exact)."""
    _model: LossModel
    _vectors: Callable[[int], Tensor]
    _gram: Tensor | None

    @property
    def rank_one_fraction(self) -> Tensor:
        """lambda_1^2 / sum lambda_i^2 `[B]`; NaN unless all eigenvalues were computed."""
        squares = self.eigenvalues.square()
        fraction = squares[:, 0] / squares.sum(1)
        return fraction if self._gram is not None else torch.full_like(fraction, torch.nan)

    def eigenvectors(self, count: int) -> tuple[Tensor, ...]:
        """The first `count` eigenvectors, `[B, count, ...]` for each input; NaN beyond the rank.

        Errors: ValueError for more than the number of eigenvalues.
        """
        known = self.eigenvalues.shape[1]
        expect(1 <= count <= known, "count", f"1 to {known} eigenvectors", count)
        flat = self._vectors(count)
        parts = self._model.bound.layout.split(flat.flatten(0, 1))
        return tuple(part.reshape(*flat.shape[:2], *part.shape[1:]) for part in parts)

    def product(self, vectors: Inputs) -> Inputs:
        """H v, for vectors v of the inputs' shapes."""
        layout = self._model.bound.layout
        parts = vectors if isinstance(vectors, tuple) else (vectors,)
        shapes = tuple(tuple(part.shape[1:]) for part in parts)
        if shapes != layout.shapes or len(parts[0]) != len(self.eigenvalues):
            raise ValueError(
                f"vectors: expected {len(self.eigenvalues)} of shapes {list(layout.shapes)}, like "
                f"the inputs, got {[tuple(part.shape) for part in parts]}"
            )
        flat = layout.flatten(parts).to(self._model.bound.origin)
        found = layout.restore(self._model.product(flat, self._model.bound.rows))
        return found if isinstance(vectors, tuple) else found[0]

    def displacement(self, c1: float) -> tuple[tuple[Tensor, ...], Tensor]:
        """The exact CASO map with lambda1 = 0, (2 lambda2 - H)^-1 g, and lambda2 `[B]`.

        lambda2 = L / 2 + c1, with L the largest eigenvalue; g is the gradient of the cross-entropy
        at the target. It is solved by the c x c system (2 lambda2 - E'GE), G = J J'.
        Errors: ValueError unless all eigenvalues were computed.
        """
        if self._gram is None:
            raise ValueError("displacement: expected all eigenvalues (leading=None)")
        bound = self._model.bound
        p = _probabilities(bound)
        twice = self.eigenvalues[:, 0].double().cpu() + 2 * c1
        pull, chosen = p.clone(), (torch.arange(len(p), device="cpu"), bound.target.classes.cpu())
        pull[chosen] = -_others(p)[chosen]
        e = _factor(p)
        small = e.mT @ self._gram @ e
        shifts = torch.diag_embed(twice[:, None].expand_as(p))
        inner = torch.linalg.solve(shifts - small, (e.mT @ self._gram @ pull[:, :, None]))
        weights = (pull + (e @ inner)[:, :, 0]) / twice[:, None]
        flat = torch.stack(
            [next(_pulled(bound, row, weights[row : row + 1]))[0] for row in range(len(p))]
        )
        lambda2 = (twice / 2).to(bound.origin)
        return bound.layout.restore(flat / self._model.scale), lambda2


def relu_hessian(
    model: ForwardFunc,
    inputs: Inputs,
    target: TargetLike = None,
    additional_forward_args: object = None,
    *,
    leading: int | None = None,
    tolerance: float = 1e-4,
    std: float | Sequence[float] = 1.0,
    layer: str | torch.nn.Module | None = None,
    batch_size: int | None = None,
) -> ReLUHessian:
    """The Hessian of the cross-entropy of a piecewise linear network (ReLU, max-pooling, ...).

    For other networks it is the Gauss-Newton matrix, which lacks the outputs' own curvature.

    >>> found = mg.relu_hessian(model, x, leading=2)

    leading: None computes all eigenvalues exactly, from one row of J for each class, and holds
    `[c, n]` for one sample at a time; k computes the k largest by Lanczos steps, to residuals of
    `tolerance` times the largest, and holds a few vectors for each.
    std: units of the Hessian, as for `CASO`.
    Errors: ValueError for fewer than two classes, or more eigenvalues than classes.
    Source: CASO paper, proposition 1, theorem 2, appendix C. Differs: E replaces a Cholesky factor,
    which a singular matrix does not have.
    """
    score = Score(
        model, kind="log-probability", task="multiclass", layer=layer, batch_size=batch_size
    )
    bound = score.bind(inputs, target, additional_forward_args)
    classes = _probabilities(bound).shape[1]
    fits = leading is None or 1 <= leading <= classes
    expect(fits, "leading", f"1 to {classes} eigenvalues", leading)
    with outside_autocast(bound.origin.device):
        loss = LossModel(bound, GaussNewton, flat_scale(std, bound.layout, bound.origin))
        return _dense(loss) if leading is None else _krylov(loss, leading, tolerance)


def _dense(loss: LossModel) -> ReLUHessian:
    bound = loss.bound
    p = _probabilities(bound)
    grams = [_gram(bound, row, p.shape[1], loss.scale) for row in range(len(bound))]
    gram, e = torch.stack(grams), _factor(p)
    values, inside = eigh(e.mT @ gram @ e)
    values, inside = values.flip(1).clamp_min(0), inside.flip(2)
    real = ~(values <= RESOLVED * values[:, :1])  # NaN stays
    weights = e @ inside / torch.where(real, values, torch.nan).sqrt()[:, None]

    def vectors(count: int) -> Tensor:
        found = [
            torch.cat(list(_pulled(bound, row, weights[row].mT[:count])))
            for row in range(len(bound))
        ]
        return torch.stack(found) / loss.scale

    eigenvalues = torch.where(real, values, 0.0).to(bound.origin)
    return ReLUHessian(
        eigenvalues=eigenvalues,
        residual=torch.zeros_like(eigenvalues),
        _model=loss,
        _vectors=vectors,
        _gram=gram,
    )


def _krylov(loss: LossModel, leading: int, tolerance: float) -> ReLUHessian:
    bound, rows = loss.bound, loss.bound.rows
    most = min(_probabilities(bound).shape[1], bound.origin.shape[1])
    space = RitzSpace(bound.origin)
    # H times a random vector has no part in the null space.
    vector = loss.product(START.draw(bound.keys, 0, bound.origin), rows)
    while space.size < most:
        direction = space.direction(vector)
        if not bool(direction.any()):
            break
        vector = loss.product(direction, rows)
        space.append(direction, vector)
        if space.size > leading and bool((_ritz(space, leading)[2] <= tolerance).all()):
            break
    values, vectors, residual = _ritz(space, leading)
    lost = leading - values.shape[1]  # the rank is smaller than `leading`
    return ReLUHessian(
        eigenvalues=torch.nn.functional.pad(values, (0, lost)).to(bound.origin),
        residual=torch.nn.functional.pad(residual * values[:, :1], (0, lost)).to(bound.origin),
        _model=loss,
        _vectors=lambda count: torch.nn.functional.pad(vectors, (0, 0, 0, lost), value=torch.nan)[
            :, :count
        ],
        _gram=None,
    )


def _ritz(space: RitzSpace, leading: int) -> tuple[Tensor, Tensor, Tensor]:
    """Values `[B, k]`, vectors `[B, k, n]`, and residuals relative to the largest value."""
    values, inside = eigh(space.small)
    values, inside = values.flip(1)[:, :leading], inside.flip(2)[:, :, :leading].mT
    vectors, images = (inside.to(part) @ part for part in (space.basis, space.images))
    off = (images - values[:, :, None].to(vectors) * vectors).double().norm(dim=2).cpu()
    return values, vectors, off / values[:, :1].clamp_min(torch.finfo(torch.float64).tiny)


def _gram(bound: BoundScore, row: int, classes: int, scale: Tensor) -> Tensor:
    """J J' of one sample, `[c, c]`, float64 on the CPU."""
    eye = torch.eye(classes, dtype=torch.float64, device="cpu")
    jacobian = torch.cat(list(_pulled(bound, row, eye))) / scale
    total = torch.zeros_like(eye)
    for part in torch.split(jacobian, COLUMNS, dim=1):
        total += (part @ part.mT).double().cpu()
    return total


def _pulled(bound: BoundScore, row: int, weights: Tensor) -> Iterator[Tensor]:
    """J' w of one sample for each row of `weights` `[k, c]`, in blocks: `[some, n]`.

    Copies of the sample, one for each row of a block, are recorded once, and every block takes a
    backward pass, with weights of size 1, which no reduced precision rounds to zero.
    """
    size = min(len(weights), bound.chunks.size)
    leaf = bound.origin[row].expand(size, -1).detach().clone().requires_grad_()
    rows = torch.full((size,), row, device=leaf.device)
    with torch.enable_grad():
        outputs = bound.outputs(leaf, rows)
    if not outputs.requires_grad:
        raise checks.detached()
    for block in torch.split(weights, size):
        largest = block.abs().amax(1, keepdim=True)
        unit = torch.where(largest > 0, block / largest, 0.0)
        full = torch.nn.functional.pad(unit, (0, 0, 0, size - len(block))).to(outputs)
        found = torch.autograd.grad(outputs, leaf, full, retain_graph=True)[0]
        if bound.meter is not None:
            bound.meter(len(block))
        yield found[: len(block)].to(leaf.dtype) * largest.to(leaf)


def _probabilities(bound: BoundScore) -> Tensor:
    """p `[B, c]`, float64 on the CPU."""
    outputs = bound.clean_outputs()
    if outputs.ndim != 2:
        raise ValueError(
            f"expected a model with outputs [B, classes], got shape {tuple(outputs.shape)}"
        )
    return outputs.double().cpu().softmax(1)


def _factor(p: Tensor) -> Tensor:
    """E `[B, c, c]`, E E' = diag(p) - p p'."""
    root = p.sqrt()
    matrix = -p[:, :, None] * root[:, None]
    matrix.diagonal(dim1=1, dim2=2).copy_(root * _others(p))
    return matrix


def _others(p: Tensor) -> Tensor:
    """1 - p `[B, c]`, as the sum of the other classes, which keeps its digits where p is near 1."""
    return (p[:, None] * (1 - torch.eye(p.shape[1], dtype=p.dtype, device=p.device))).sum(2)
