"""RelEx against its paper's loss written out, on a model whose evidence is known, and at the ends
of the probabilities."""

import pytest
import torch
from torch import Tensor, nn

from contracts.networks import Picture, pictures
from moreaugrad import RelEx, Status
from moreaugrad.score.noise import KEYS, Noise
from toys import network, normal

MODEL = network([12, 20, 4], nn.Tanh, gain=2.0).requires_grad_(False)
X = normal(5, 12, seed=3)


def written_out(
    model: nn.Module, x: Tensor, target: int, *, steps: int, draws: int, seed: int, key: int = 0
) -> Tensor:
    """One sample `[n]`, in probabilities, one draw after the other, by torch's own optimiser."""
    noise, like = Noise(seed), x[None]
    spread = 0.1 * (x.max() - x.min())
    mask = 0.01 * torch.distributions.Normal(0.0, 1.0).cdf(noise.draw([key + KEYS], 0, like)[0])
    mask = mask.clone().requires_grad_()
    optimiser = torch.optim.SGD([mask], lr=0.1, momentum=0.99)
    for step in range(steps):
        loss = torch.zeros((), dtype=x.dtype)
        for draw in range(draws):
            noisy = x + spread * noise.draw([key], step * draws + draw, like)[0]
            shown = model((noisy * mask)[None]).softmax(1)[0, target]
            hidden = model((noisy * (1 - mask))[None]).softmax(1)[0, target]
            loss = loss - (shown.log() + 1.0 * (1 - hidden + 1e-7).log()) / draws
        loss = loss + 1e-4 * mask.abs().sum()
        optimiser.zero_grad()
        loss.backward()
        mask.grad /= mask.grad.norm()
        optimiser.step()
        with torch.no_grad():
            mask.clamp_(0, 1)
    return mask.detach()


@pytest.mark.parametrize(("draws", "seed"), [(8, 0), (3, 5)])
def test_a_mask_is_that_of_the_loss_written_out(draws: int, seed: int) -> None:
    targets, ids = [2, 0, 1, 3, 2], [4, 0, 7, 1, 9]
    result = RelEx(MODEL, draws=draws, seed=seed, batch_size=7).explain(X, targets, ids=ids)
    for i, x in enumerate(X):
        expected = written_out(MODEL, x, targets[i], steps=50, draws=draws, seed=seed, key=ids[i])
        torch.testing.assert_close(result.maps[i], expected, rtol=1e-7, atol=1e-9)
    assert ((result.maps >= 0) & (result.maps <= 1)).all()
    # The descent moves and binds, or the comparison would say little.
    assert (result.maps > 0.3).any()
    assert (result.maps == 0).any()
    assert set(result.status) == {Status.FIXED_BUDGET}
    assert result.steps.tolist() == [50] * 5
    assert result.evaluations.tolist() == [2 * 50 * draws] * 5


def test_a_batch_equals_its_samples() -> None:
    model, x = Picture(), pictures(5)
    batch = RelEx(model, batch_size=11).explain(x, 1, ids=range(5))
    for i in range(5):
        alone = RelEx(model).explain(x[i : i + 1], 1, ids=[i])
        torch.testing.assert_close(alone.maps, batch.maps[i : i + 1], rtol=1e-8, atol=1e-10)
        for name in ("foreground", "background"):
            torch.testing.assert_close(alone.details[name], batch.details[name][i : i + 1])


class Evidence(nn.Module):
    """Softmax of (w'x, 0) times a gain: where w x > 0, an entry speaks for class 0."""

    def __init__(self, weight: Tensor, gain: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight, self.gain, self.bias = weight, gain, bias

    def forward(self, x: Tensor) -> Tensor:
        logit = self.gain * (x @ self.weight.to(x.dtype)) + self.bias
        return torch.stack((logit, torch.zeros_like(logit)), dim=1)


def test_the_mask_lies_where_the_evidence_is() -> None:
    weight = normal(40, seed=1)
    x = normal(3, 40, seed=2)
    evidence = x * weight
    result = RelEx(Evidence(weight, gain=0.5), sigma=0.02).explain(x, 0)
    for mask, speaks in zip(result.maps, evidence, strict=True):
        assert mask[speaks > 0.1].min() > mask[speaks < -0.1].max()
        assert mask[speaks < -0.1].max() < 0.02
        assert mask[speaks > 0.1].mean() > 0.5
    clean = torch.sigmoid(0.5 * evidence.sum(1))
    assert (result.details["foreground"] > clean).all()
    assert (result.details["background"] < clean).all()
    # The other class's evidence is the rest.
    other = RelEx(Evidence(weight, gain=0.5), sigma=0.02).explain(x, 1)
    assert ((other.maps > 0.1) & (result.maps > 0.1)).sum() <= 1


def test_what_the_details_are() -> None:
    result = RelEx(MODEL, steps=20).explain(X, 1)
    for name, mask in (("foreground", result.maps), ("background", 1 - result.maps)):
        expected = MODEL(X * mask).softmax(1)[:, 1]
        torch.testing.assert_close(result.details[name], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("bias", [-200.0, 200.0])
def test_probabilities_at_zero_and_one_are_finite(bias: float, dtype: torch.dtype) -> None:
    x = normal(2, 12, seed=4, dtype=dtype)
    weight = normal(12, seed=5)
    result = RelEx(Evidence(weight, bias=bias)).explain(x, 0)
    assert torch.isfinite(result.maps).all()
    assert all(torch.isfinite(values).all() for values in result.details.values())
    assert all(status is not Status.NON_FINITE for status in result.status)
    if bias < 0:  # the class is hopeless, and its evidence found all the same
        strong = (x * weight) > 0.3
        assert (result.maps[strong] > 0.3).all()


class Step(nn.Module):
    """Flat where the first entry is below 10: there is no way from anywhere near zero."""

    def forward(self, x: Tensor) -> Tensor:
        logit = (x[:, 0] - 10).clamp_min(0) * x[:, 1]
        return torch.stack((logit, torch.zeros_like(logit)), dim=1)


def test_no_gradient_is_reported_and_leaves_the_others_alone() -> None:
    x = normal(3, 4, seed=6)
    x[1, 0], x[1, 1] = 12.0, 1.0
    result = RelEx(Step(), sigma=0.0).explain(x, 0)
    failed = [status is Status.NO_GRADIENT for status in result.status]
    assert failed == [True, False, True]
    assert not result.maps[[0, 2]].any()
    assert result.maps[1, 0] > 0.25
    # What the model does not look at has no share in the map.
    assert not result.maps[1, 2:].any()
    with pytest.raises(RuntimeError, match=r"sample 0: .*exactly zero at every step.*explain ano"):
        result.raise_if_failed()


def test_a_gradient_that_is_no_number_is_reported() -> None:
    class Root(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            logit = x[:, 0].abs().sqrt() + x[:, 1]
            return torch.stack((logit, torch.zeros_like(logit)), dim=1)

    x = torch.tensor([[1.0, 2.0], [0.0, 2.0]])
    result = RelEx(Root(), sigma=0.0, steps=5).explain(x, 0)
    assert result.status == (Status.FIXED_BUDGET, Status.NON_FINITE)
    assert torch.isfinite(result.maps[0]).all()


def test_published_settings() -> None:
    assert RelEx.published(MODEL).draws == 50
    assert (
        RelEx.published(MODEL, draws=4, steps=7).settings().items()
        >= {"draws": 4, "steps": 7}.items()
    )


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"lambda1": -1.0}, "lambda1: expected a number >= 0, got -1.0"),
        ({"lambda2": float("inf")}, "lambda2: expected a number >= 0, got inf"),
        ({"momentum": 1.0}, r"momentum: expected a number in \[0, 1\), got 1.0"),
        ({"rate": 0.0}, "rate: expected a number > 0, got 0.0"),
        ({"score": "probability"}, "score: expected 'log-probability'.*got 'probability'"),
    ],
)
def test_settings_that_make_no_sense(settings: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        RelEx(MODEL, **settings)
