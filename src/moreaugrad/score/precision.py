"""Probabilities and gradients that are exact where they are tiny, also in reduced precision.

The backward pass of softmax forms p - 1 from a rounded p, so that in float32 the gradient of a
log-probability is lost as soon as 1 - p is below about 1e-6. Here 1 - p is never a difference:
with m the class of the largest output z_m and t = logsumexp of the others - z_m,

    log p_m = -softplus(t),    log p_j = z_j - z_m - softplus(t),

whose first and second derivatives are products of p's and of sigmoid(t) = 1 - p_m.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from moreaugrad.score.inputs import per_sample


def softplus(t: Tensor) -> Tensor:
    """log(1 + exp(t)), with exact derivatives on both sides (torch's is linear above 20)."""
    return torch.where(t > 0, t + F.softplus(-t), F.softplus(t))


def log_softmax(outputs: Tensor) -> Tensor:
    """The log-probabilities of all classes, `[B, K, ...]` as the outputs.

    Outputs of -inf are classes that are switched off: -inf, without a gradient.
    """
    top = outputs.detach().argmax(1, keepdim=True)
    largest = outputs.gather(1, top)
    # Not -inf: if all others are switched off, logsumexp's gradient would be 0 / 0.
    least = torch.finfo(outputs.dtype).min / 2
    others = outputs.masked_fill(outputs == -torch.inf, least).scatter(1, top, least)
    odds_against = others.logsumexp(1, keepdim=True) - largest
    below = torch.where(torch.zeros_like(outputs).scatter(1, top, 1) > 0, 0.0, outputs - largest)
    return below - softplus(odds_against)


def log_probability(outputs: Tensor, classes: Tensor) -> Tensor:
    """The log-probability of one class for each row: `[B, ...]` for outputs `[B, K, ...]`."""
    return log_softmax(outputs).gather(1, classes[:, None])[:, 0]


def log_sigmoid(evidence: Tensor) -> Tensor:
    """The log-probability of a class whose log-odds are `evidence`, of any shape."""
    return -softplus(-evidence)


def raised(values: Tensor) -> Tensor:
    """Values in single precision at least, also where a network computes in float16."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def magnitude(values: Tensor) -> Tensor:
    """The power of two at or below each row's largest entry, `[B]`; 1 for a row of zeros.

    A power of two, so that nothing is rounded when the row is divided by it.
    """
    size = values.reshape(len(values), -1).abs().amax(1)
    return torch.where(size > 0, size.log2().floor().exp2(), 1.0)


def pulled_back(
    outputs: Tensor,
    inputs: Sequence[Tensor | GradientEdge],
    read: Callable[[Tensor], Tensor],
) -> tuple[Tensor, tuple[Tensor | None, ...]]:
    """read(outputs) `[B]` in at least single precision, and each row's gradient by the inputs.

    Each row's gradient by its outputs is scaled to a largest entry between 1 and 2 before it is
    propagated: a gradient of 1e-9 would vanish in a network that computes in float16.
    read: takes detached outputs. The gradient is None for inputs that have no influence.
    """
    with torch.enable_grad():
        leaf = raised(outputs.detach()).requires_grad_()
        values = read(leaf)
        (slope,) = torch.autograd.grad(values.sum(), leaf, materialize_grads=True)
    size = magnitude(slope)
    unit = (slope / per_sample(size, slope)).to(outputs.dtype)
    with torch.enable_grad():  # of a sum: for other outputs torch loads its symbolic shapes, .4 s
        total = (outputs * unit).sum()
    # torch takes a mixture of inputs, which its annotation does not know.
    found = torch.autograd.grad(total, inputs, allow_unused=True)  # type: ignore[arg-type]
    return values.detach(), tuple(
        None if g is None else raised(g) * per_sample(size, raised(g)) for g in found
    )


def resolution(model: object, dtypes: Iterable[torch.dtype]) -> float:
    """The rounding of the coarsest type among these and the model's weights; 0 without any."""
    weights = model.parameters() if isinstance(model, nn.Module) else ()
    kinds = {*dtypes, *(weight.dtype for weight in weights)}
    return max((torch.finfo(kind).eps for kind in kinds if kind.is_floating_point), default=0.0)


def reduced_precision(model: object, dtypes: Iterable[torch.dtype]) -> bool:
    """Whether the network has inputs or weights of less than single precision."""
    return resolution(model, dtypes) > torch.finfo(torch.float32).eps
