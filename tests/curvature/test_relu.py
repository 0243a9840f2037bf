"""The closed-form Hessian of piecewise linear networks against the dense one."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from moreaugrad import ReLUHessian, relu_hessian
from toys import network, normal

MODEL = network([10, 24, 16, 6], nn.ReLU, gain=2.0).requires_grad_(False)
X = normal(4, 10, seed=5)


def dense(x: torch.Tensor) -> torch.Tensor:
    return torch.autograd.functional.hessian(
        lambda v: F.cross_entropy(MODEL(v[None]), torch.tensor([2])), x
    )


DENSE = torch.stack([dense(x) for x in X])


@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_eigenvalues_and_vectors_are_those_of_the_dense_hessian(batch_size: int | None) -> None:
    found = relu_hessian(MODEL, X, batch_size=batch_size)
    expected = torch.linalg.eigvalsh(DENSE).flip(1)
    torch.testing.assert_close(found.eigenvalues, expected[:, :6], rtol=1e-8, atol=1e-12)
    assert (found.eigenvalues[:, 5] == 0).all()  # the rank is one less than the classes
    (vectors,) = found.eigenvectors(3)
    images = torch.einsum("bij,bkj->bki", DENSE, vectors)
    torch.testing.assert_close(images, found.eigenvalues[:, :3, None] * vectors)
    torch.testing.assert_close(vectors.norm(dim=2), torch.ones_like(vectors[:, :, 0]))
    fraction = expected[:, 0].square() / expected.square().sum(1)
    torch.testing.assert_close(found.rank_one_fraction, fraction)


def test_eigenvectors_beyond_the_rank_are_nan() -> None:
    (vectors,) = relu_hessian(MODEL, X).eigenvectors(6)
    assert vectors[:, :5].isfinite().all()
    assert vectors[:, 5].isnan().all()


@pytest.mark.parametrize("leading", [None, 2])
def test_products_are_those_with_the_dense_hessian(leading: int | None) -> None:
    v = normal(4, 10, seed=6)
    product = relu_hessian(MODEL, X, leading=leading).product(v)
    torch.testing.assert_close(product, torch.einsum("bij,bj->bi", DENSE, v))


@pytest.mark.parametrize("leading", [1, 3, 6])
def test_a_few_by_lanczos_are_the_first_of_all(leading: int) -> None:
    few, every = relu_hessian(MODEL, X, leading=leading, tolerance=1e-9), relu_hessian(MODEL, X)
    torch.testing.assert_close(
        few.eigenvalues, every.eigenvalues[:, :leading], rtol=1e-8, atol=1e-9
    )
    assert (few.residual <= 1e-8 * few.eigenvalues[:, :1]).all()
    count = min(leading, 3)
    for a, b in zip(few.eigenvectors(count)[0], every.eigenvectors(count)[0], strict=True):
        overlap = (a * b).sum(1).abs()
        torch.testing.assert_close(overlap, torch.ones_like(overlap))
    assert few.rank_one_fraction.isnan().all()


def test_a_loose_tolerance_is_stated() -> None:
    few, every = relu_hessian(MODEL, X, leading=1, tolerance=0.3), relu_hessian(MODEL, X)
    nearest = (few.eigenvalues - every.eigenvalues).abs().amin(1, keepdim=True)
    assert (nearest <= few.residual * (1 + 1e-9)).all()
    assert (few.residual > 0).any()


def test_nothing_of_the_size_of_the_jacobian_is_held_for_a_few() -> None:
    """Passes are of the samples alone: no pass has a row for each class."""
    largest = 0

    class Watching(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            nonlocal largest
            largest = max(largest, len(x))
            out: torch.Tensor = MODEL(x)
            return out

    relu_hessian(Watching(), X, leading=2)
    assert largest == len(X)


def test_units_scale_the_eigenvalues() -> None:
    plain, scaled = relu_hessian(MODEL, X), relu_hessian(MODEL, X, std=0.5)
    torch.testing.assert_close(scaled.eigenvalues, 4 * plain.eigenvalues)
    (vectors,), (others,) = plain.eigenvectors(2), scaled.eigenvectors(2)
    torch.testing.assert_close(vectors.abs(), others.abs())


def test_a_linear_softmax_model_has_its_textbook_hessian() -> None:
    linear = nn.Linear(8, 4).double().requires_grad_(False)
    x = normal(1, 8, seed=1)
    p = linear(x).softmax(1)[0]
    expected = linear.weight.T @ (torch.diag(p) - torch.outer(p, p)) @ linear.weight
    hessian: ReLUHessian = relu_hessian(linear, x)
    torch.testing.assert_close(
        torch.stack([hessian.product(v[None])[0] for v in torch.eye(8).double()]), expected
    )


def test_bad_input() -> None:
    one = nn.Linear(10, 1).double()
    with pytest.raises(ValueError, match="at least 2 outputs"):
        relu_hessian(one, X)
    for leading in (0, 7):
        with pytest.raises(ValueError, match="leading: expected 1 to 6"):
            relu_hessian(MODEL, X, leading=leading)
    found = relu_hessian(MODEL, X, leading=2)
    with pytest.raises(ValueError, match="count: expected 1 to 2"):
        found.eigenvectors(3)
    with pytest.raises(ValueError, match="all eigenvalues"):
        found.displacement(1.0)
    with pytest.raises(ValueError, match="vectors: expected 4"):
        found.product(X[:2])


def test_inside_autocast_the_network_alone_is_in_reduced_precision() -> None:
    model = network([12, 20, 5], nn.ReLU, gain=2.5, dtype=torch.float32)
    x = normal(3, 12, seed=3, dtype=torch.float32)
    for leading in (None, 2):
        expected = relu_hessian(model, x, leading=leading).eigenvalues
        with torch.autocast("cpu", dtype=torch.bfloat16):
            found = relu_hessian(model, x, leading=leading).eigenvalues
        torch.testing.assert_close(found[:, :2], expected[:, :2], rtol=0.1, atol=1e-3)


@pytest.mark.parametrize("gap", [5.0, 30.0, 60.0])
def test_a_prediction_as_good_as_certain_has_its_exact_hessian(gap: float) -> None:
    """Of two classes: H = p q d d' and the cross-entropy's gradient -q d, d = w_0 - w_1."""
    weight = normal(2, 6, seed=3)
    model = nn.Linear(6, 2, dtype=torch.float64)
    with torch.no_grad():
        model.weight.copy_(weight)
        model.bias.copy_(torch.tensor([gap, 0.0]))
    found = relu_hessian(model, torch.zeros(1, 6, dtype=torch.float64), target=0)
    d, q = weight[0] - weight[1], torch.sigmoid(torch.tensor(-gap, dtype=torch.float64))
    value = (1 - q) * q * d @ d
    torch.testing.assert_close(found.eigenvalues[0, 0], value, rtol=1e-12, atol=0)
    (step,), lambda2 = found.displacement(c1=float(value))
    torch.testing.assert_close(lambda2[0], 1.5 * value, rtol=1e-12, atol=0)
    torch.testing.assert_close(step[0], -q * d / (2 * value), rtol=1e-9, atol=0)
