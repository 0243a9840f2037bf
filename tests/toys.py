"""Small scores whose maps are known, and the problems they make."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from moreaugrad.penalties import Penalty, Weight, Zero
from moreaugrad.penalties.base import PerInput
from moreaugrad.score.bound_score import BoundScore, ForwardFunc
from moreaugrad.score.inputs import per_sample
from moreaugrad.score.noise import Noise
from moreaugrad.score.score import Score
from moreaugrad.solvers import MoreauProblem


def quadratic(x: Tensor, hessian: Tensor, slope: Tensor) -> Tensor:
    """x'Hx / 2 + b'x with an H `[B, n, n]` and b `[B, n]` for each sample."""
    return torch.einsum("bi,bij,bj->b", x, hessian, x) / 2 + (slope * x).sum(1)


def spectrum(values: Tensor, seed: int) -> Tensor:
    """Symmetric matrices `[B, n, n]` with eigenvalues `values` `[B, n]` and random axes."""
    generator = torch.Generator().manual_seed(seed)
    shape = (*values.shape, values.shape[-1])
    axes = torch.linalg.qr(torch.randn(shape, generator=generator, dtype=values.dtype)).Q
    return axes @ torch.diag_embed(values) @ axes.mT


def normal(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def network(
    sizes: Sequence[int],
    activation: type[nn.Module] = nn.Tanh,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    gain: float = 1.0,
) -> nn.Sequential:
    """A random multilayer perceptron in evaluation mode."""
    layers: list[nn.Module] = []
    for i, (width, following) in enumerate(itertools.pairwise(sizes)):
        linear = nn.Linear(width, following, dtype=dtype)
        with torch.no_grad():
            weight = normal(following, width, seed=seed + i, dtype=dtype)
            linear.weight.copy_(gain * weight / width**0.5)
            linear.bias.copy_(normal(following, seed=seed + 100 + i, dtype=dtype) / 3)
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1]).eval()


def bound(
    model: ForwardFunc,
    x: Tensor | tuple[Tensor, ...],
    *,
    args: object = None,
    target: object = 0,
    sigma: float = 0.0,
    samples: int = 16,
    seed: int = 0,
    antithetic: bool = True,
    ids: Sequence[int] | None = None,
    batch_size: int | None = None,
    task: str = "regression",
) -> BoundScore:
    """A regression score at `x`, smoothed at an absolute noise level."""
    score = Score(
        model,
        task=task,
        batch_size=batch_size,
        sigma=sigma,
        samples=samples,
        sigma_mode="absolute",
        noise=Noise(seed, antithetic),
    )
    return score.bind(x, target, args, ids)


def problem(
    score: BoundScore,
    *,
    rho: float | Tensor = 1.0,
    eta: float | Tensor = 0.0,
    penalty: Penalty | None = None,
) -> MoreauProblem:
    """MoreauGrad's problem; `rho` and `eta` are numbers or one for each sample."""
    like = score.origin[:, 0]
    return MoreauProblem(
        score=score,
        rho=torch.zeros_like(like) + rho,
        eta=torch.zeros_like(like) + eta,
        penalty=PerInput((penalty or Zero(),) * len(score.layout.shapes), score.layout),
    )


def maps(found: Tensor, solved: MoreauProblem) -> Tensor:
    """A = -u / rho."""
    return -found / solved.rho[:, None]


def relative(found: Tensor, truth: Tensor) -> Tensor:
    """||found - truth|| / ||truth|| for each sample."""
    return (found - truth).flatten(1).norm(dim=1) / truth.flatten(1).norm(dim=1)


def last(words: list[str]) -> list[str]:
    """A command line where an option that is there twice, but for --set, has its last value."""
    found: dict[object, list[str]] = {}
    group: list[str] = found.setdefault("command", [])
    for place, word in enumerate(words):
        if word.startswith("--"):
            key = (word, place) if word == "--set" else word.partition("=")[0]
            group = found[key] = []
        group.append(word)
    return [word for group in found.values() for word in group]


@dataclass(frozen=True, eq=False)
class Length(Penalty):
    """R(u) = weight ||u||_2, with the four methods that every penalty has and no more."""

    weight: Weight
    opaque: bool = False
    """Whether autograd sees nothing of the prox."""

    def value(self, u: Tensor) -> Tensor:
        length = u.flatten(1).norm(dim=1)
        return per_sample(self.weight, length) * length

    def prox(self, u: Tensor, tau: Weight) -> Tensor:
        u = torch.as_tensor(u.numpy()) if self.opaque else u
        length = per_sample(u.flatten(1).norm(dim=1), u)
        shorter = (length - per_sample(self.weight, u) * per_sample(tau, u)).clamp_min(0)
        return u * (shorter / length.clamp_min(torch.finfo(u.dtype).tiny))

    def conjugate(self, d: Tensor) -> Tensor:
        length = d.flatten(1).norm(dim=1)
        inside = length <= per_sample(self.weight, length) * (1 + 1e-6)
        return torch.zeros_like(length).masked_fill(~inside, torch.inf)

    def maximiser(self, g: Tensor) -> Tensor:
        length = per_sample(g.flatten(1).norm(dim=1), g).clamp_min(torch.finfo(g.dtype).tiny)
        return per_sample(self.weight, g) * (g / length)
