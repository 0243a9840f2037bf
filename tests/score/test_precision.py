"""Log-probabilities and their derivatives, from an even to an all but certain class."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import moreaugrad as mg
import toys
from moreaugrad.score.precision import (
    log_probability,
    log_sigmoid,
    log_softmax,
    pulled_back,
    softplus,
)
from moreaugrad.score.score import Score
from moreaugrad.score.targets import KINDS, Readout, Target
from moreaugrad.training import cross_entropy

MARGINS = [0.0, 1.0, 5.0, 10.0, 15.0, 18.0, 22.0, 40.0, 80.0]
"""Of the first class's output over the others: p from .25 to 1 - 1e-34."""

SINGLE = 5e-6


def outputs(margin: float, dtype: torch.dtype = torch.float64) -> Tensor:
    """`[2, 4]`: the second row prefers the first class twice as much."""
    return torch.tensor([[margin, 0.5, -0.25, 0.0], [2 * margin, -1.0, 1.5, 0.25]], dtype=dtype)


def derivatives(work: Callable[[Tensor], Tensor], at: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of one row's number: the value, the gradient `[K]` and the Hessian `[K, K]`."""
    value = work(at[None])[0]
    gradient = torch.autograd.functional.jacobian(lambda z: work(z[None])[0], at)
    hessian = torch.autograd.functional.hessian(lambda z: work(z[None])[0], at)
    return value, gradient, hessian


def exact_log_probability(z: Tensor, target: int) -> tuple[float, list[float], list[list[float]]]:
    """By sums of positive terms only: 1 - p is the sum of the other probabilities."""
    odds = [math.exp(v - float(z.max())) for v in z.tolist()]
    p = [v / math.fsum(odds) for v in odds]

    def others(j: int) -> float:
        return math.fsum(v for k, v in enumerate(p) if k != j)

    rest = others(target)
    value = math.log1p(-rest) if rest < 0.5 else math.log(p[target])
    gradient = [rest if j == target else -p[j] for j in range(len(p))]
    hessian = [
        [-p[j] * others(j) if j == k else p[j] * p[k] for k in range(len(p))] for j in range(len(p))
    ]
    return value, gradient, hessian


def assert_near(found: Tensor, expected: object, limit: float) -> None:
    wanted = torch.as_tensor(expected, dtype=torch.float64)
    apart = (found.double() - wanted).norm() / wanted.norm()
    assert apart <= limit, f"relative error {float(apart):.2g}"


@pytest.mark.parametrize("margin", MARGINS)
@pytest.mark.parametrize("target", [0, 1, 3])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-13), (torch.float32, SINGLE)])
def test_value_gradient_and_hessian_of_a_log_probability(
    margin: float, target: int, dtype: torch.dtype, limit: float
) -> None:
    z = outputs(margin, dtype)[0]
    found = derivatives(lambda rows: log_probability(rows, torch.tensor([target])), z)
    expected = exact_log_probability(z.double(), target)
    for one, other in zip(found, expected, strict=True):
        assert_near(one, other, limit)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("logit", "margin")])
@pytest.mark.parametrize("task", ["multiclass", "binary", "multilabel"])
@pytest.mark.parametrize("margin", MARGINS[:-1])
def test_every_kind_of_score_in_single_precision_equals_double(
    kind: str, task: str, margin: float
) -> None:
    """float64 itself is exact here by the test above, for softmax; a sigmoid is one of two."""
    wide = outputs(margin)[:, :1] if task == "binary" else outputs(margin)
    target = Target(torch.tensor([1, 1]) if task == "binary" else torch.tensor([0, 0]))
    found = []
    for z in (wide.float(), wide):
        leaf = z.requires_grad_()
        found.append(
            torch.autograd.grad(Readout(kind=kind, task=task).read(leaf, target).sum(), leaf)[
                0
            ].double()
        )
    for one, other in zip(*found, strict=True):
        assert_near(one, other, SINGLE)
        assert other.norm() > 0


@pytest.mark.parametrize("t", [-80.0, -30.0, -1.0, 0.0, 1.0, 30.0, 80.0])
def test_softplus_and_log_sigmoid(t: float) -> None:
    leaf = torch.tensor(t, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(softplus(leaf), leaf, create_graph=True)
    (bend,) = torch.autograd.grad(slope, leaf)
    up, down = 1 / (1 + math.exp(-t)), 1 / (1 + math.exp(t))
    assert slope.item() == pytest.approx(up, rel=1e-14)
    assert bend.item() == pytest.approx(up * down, rel=1e-14)
    expected = max(t, 0) + math.log1p(math.exp(-abs(t)))
    assert softplus(leaf).item() == pytest.approx(expected, rel=1e-15)
    assert log_sigmoid(-leaf).item() == pytest.approx(-expected, rel=1e-15)


def test_it_is_log_softmax_over_any_dimensions() -> None:
    z = toys.normal(3, 5, 2, 4, seed=1)
    torch.testing.assert_close(log_softmax(z), F.log_softmax(z, 1), rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(log_softmax(z).exp().sum(1), torch.ones(3, 2, 4).double())


@pytest.mark.parametrize("off", [[2], [1, 2], [1, 2, 3]])
def test_classes_that_are_switched_off_change_nothing(off: list[int]) -> None:
    """An output of -inf: the same as a network without that class, with a gradient of zero."""
    kept = [j for j in range(4) if j not in off]
    z = outputs(3.0)
    z[:, off] = -torch.inf
    leaf = z.requires_grad_()
    found = log_softmax(leaf)[:, kept]
    torch.testing.assert_close(found, F.log_softmax(z[:, kept], 1))
    (slope,) = torch.autograd.grad(found[:, 0].sum(), leaf)
    assert (slope[:, off] == 0).all()
    assert torch.isfinite(slope).all()


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_score_of_a_network_with_a_class_switched_off(kind: str) -> None:
    whole, x = toys.network((5, 8, 3)), toys.normal(4, 5, seed=1)

    def masked(rows: Tensor) -> Tensor:
        return F.pad(whole(rows), (0, 1), value=-torch.inf)

    expected = Score(whole, kind=kind).bind(x, 1)
    found = Score(masked, kind=kind).bind(x, 1)
    assert torch.equal(found.prediction, expected.prediction)
    torch.testing.assert_close(found.value_and_grad(), expected.value_and_grad())
    with pytest.raises(ValueError, match=r"score.*finite.*sample"):
        Score(masked, kind=kind).bind(x, 3)


@pytest.mark.parametrize("margin", MARGINS)
def test_cross_entropy_with_probabilities_as_labels(margin: float) -> None:
    """One-hot: that of the class. Mixed: the mean of the classes' own."""
    z = outputs(margin, torch.float32)
    hot, mixed = torch.tensor([[1.0, 0, 0, 0]] * 2), torch.tensor([[0.7, 0.3, 0, 0]] * 2)

    def slope(y: Tensor) -> Tensor:
        leaf = z.clone().requires_grad_()
        return torch.autograd.grad(cross_entropy(leaf, y).sum(), leaf)[0]

    torch.testing.assert_close(slope(hot), slope(torch.tensor([0, 0])), rtol=1e-6, atol=0)
    torch.testing.assert_close(
        slope(mixed),
        0.7 * slope(torch.tensor([0, 0])) + 0.3 * slope(torch.tensor([1, 1])),
        rtol=1e-5,
        atol=1e-7,
    )


def sure(margin: float) -> nn.Sequential:
    """A network that prefers class 0 by about this much."""
    model = toys.network((6, 16, 4)).float()
    last = model[-1]
    assert isinstance(last, nn.Linear)
    with torch.no_grad():
        last.bias.copy_(torch.tensor([margin, 0.0, 0.5, 0.0]))
    return model


@pytest.mark.parametrize("margin", [0.0, 8.0, 16.0, 21.0])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("kind", ["probability", "log-probability", "cross-entropy"])
def test_a_reduced_precision_network_is_as_exact_as_its_logits(
    margin: float, dtype: torch.dtype, kind: str
) -> None:
    """Its gradients of about 1e-9 would vanish in float16 on their way through the network."""
    model, x = sure(margin), toys.normal(4, 6, seed=2).float()
    expected = Score(model, kind=kind).bind(x, 0).value_and_grad()[1]
    low = Score(sure(margin).to(dtype), kind=kind).bind(x.to(dtype), 0)
    found = low.value_and_grad()[1]
    assert_near(found / found.norm(), expected / expected.norm(), 0.15)
    assert found.dtype == torch.float32
    # Only its size hangs on how exactly the logits' differences are known.
    assert_near(found.norm().log(), expected.norm().log(), 0.05)


def test_what_is_pulled_back_is_scaled_exactly() -> None:
    """A power of two changes no bit."""
    x = toys.normal(3, 6, seed=1).float().requires_grad_()
    model = sure(3.0)
    _, found = pulled_back(model(x), (x,), lambda z: log_softmax(z)[:, 1])
    expected = torch.autograd.grad(log_softmax(model(x))[:, 1].sum(), x)
    assert torch.equal(found[0], expected[0])


@pytest.mark.parametrize("margin", [0.0, 5.0, 16.0, 22.0])
def test_the_adversary_of_a_training_sample_that_is_learnt(margin: float) -> None:
    """epsilon sign(g) in single precision: by g in float64."""
    x, y = toys.normal(8, 6, seed=3), torch.zeros(8, dtype=torch.long)
    adversary = mg.training.Fast(mg.L1(0.05))
    found = adversary(sure(margin), x.float(), y)
    expected = adversary(sure(margin).double(), x, y)
    torch.testing.assert_close(found, expected.float())
