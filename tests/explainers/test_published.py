"""The published algorithm, against a literal loop with the release's noise level."""

import pytest
import torch
from torch import Tensor

import toys
from moreaugrad import PublishedMoreauGrad
from moreaugrad.score.noise import Noise

F64 = torch.float64
RHO, GAMMA, STEPS, AVERAGE, DRAWS, SEED = 0.8, 0.1, 12, 5, 3, 4


def literal(model: torch.nn.Module, x: Tensor, eta: float, group: int | None) -> Tensor:
    """One sample `[1, 1, 4, 4]`: the loop as released, the noise level that of the clean input."""
    sigma = 0.1 * float(x.max() - x.min())
    noise = Noise(SEED, antithetic=False)
    delta, total = torch.zeros_like(x), torch.zeros_like(x)
    for step in range(STEPS):
        gradient = torch.zeros_like(x)
        for draw in range(DRAWS):
            z = noise.normal(0, step * DRAWS + draw, x.numel()).to(F64).reshape(x.shape)
            at = (x + delta + sigma * z).requires_grad_()
            gradient += torch.autograd.grad(model(at.flatten(1))[0, 1], at)[0] / DRAWS
        moved = (1 - GAMMA / RHO) * delta - GAMMA * gradient
        weight = GAMMA * eta
        if group is None:
            delta = moved.sign() * (moved.abs() - weight).clamp_min(0)
        else:
            delta = torch.zeros_like(moved)
            for row in range(0, 4, group):
                for column in range(0, 4, group):
                    at_block = (..., slice(row, row + group), slice(column, column + group))
                    block = moved[at_block]
                    delta[at_block] = block * (1 - weight / block.norm()).clamp_min(0)
        if step >= STEPS - AVERAGE:
            total += delta / AVERAGE
    return total


@pytest.mark.parametrize(("eta", "group"), [(0.0, None), (0.3, None), (0.3, 2)])
def test_it_is_the_released_loop(eta: float, group: int | None) -> None:
    net = toys.network((16, 8, 3), gain=1.5)
    model = torch.nn.Sequential(torch.nn.Flatten(), net)
    x = 2 * toys.normal(3, 1, 4, 4, seed=6)
    explainer = PublishedMoreauGrad(
        model, rho=RHO, eta=eta, gamma=GAMMA, steps=STEPS, average=AVERAGE, draws=DRAWS,
        group=group, seed=SEED,
    )  # fmt: skip
    found = explainer.explain(x, 1)
    expected = torch.cat([literal(net, one[None], eta, group) for one in x])
    torch.testing.assert_close(found.maps, expected, rtol=1e-12, atol=1e-14)
