"""The one-step perturbation: conjugate pairs, per-sample gradients, a model left as found."""

import pytest
import torch
from torch import Tensor, nn

from moreaugrad.penalties import L1, ElasticNet, GroupL2, Penalty, SquaredL2, WeightedL2
from moreaugrad.score.inputs import InputSpace
from moreaugrad.training import Fast, cross_entropy, hinge
from toys import normal

PENALTIES = {
    "l1": L1(0.02),
    "group": GroupL2(0.3, size=4),
    "group-separate": GroupL2(0.3, size=4, channels="separate"),
    "elastic-net": ElasticNet(0.02, 0.1),
    "squared-l2": SquaredL2(0.1),
    "weighted-l2": WeightedL2(torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(1))),
}
SPACE = InputSpace(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))


def convolutional(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Sequential:
    """A small network of 3 x 8 x 8 inputs and 4 classes with batch normalisation and dropout."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 6, 3),
            nn.BatchNorm2d(6), nn.SiLU(), nn.Flatten(), nn.Dropout(0.5), nn.Linear(216, 4),
        )  # fmt: skip
    return model.to(dtype)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor]:
    return normal(5, 3, 8, 8, seed=3), torch.tensor([0, 1, 2, 3, 1])


@pytest.mark.parametrize("loss", [cross_entropy, hinge])
@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
def test_it_maximises_the_linearised_problem(penalty: Penalty, loss, batch) -> None:
    x, y = batch
    model = convolutional().eval()
    leaf = x.clone().requires_grad_()
    g = torch.autograd.grad(loss(model(leaf), y).sum(), leaf)[0]
    found = Fast(penalty).perturb(model, x, y, loss=loss)
    reached = (g * found.delta).flatten(1).sum(1) - found.h
    assert torch.allclose(reached, penalty.value(g))
    assert torch.allclose(found.gap, torch.zeros_like(found.gap), atol=1e-10)
    # No other point does better: feasible ones are drawn around the answer.
    for seed in range(20):
        toward = penalty.maximiser(normal(*x.shape, seed=seed) + g)
        for share in (0.05, 0.5, 1.0):
            other = found.delta + share * (toward - found.delta)
            value = (g * other).flatten(1).sum(1) - penalty.conjugate(other)
            assert bool((value <= reached + 1e-10).all())


@pytest.mark.parametrize("penalty", PENALTIES.values(), ids=PENALTIES)
def test_a_batch_equals_its_samples(penalty: Penalty, batch) -> None:
    x, y = batch
    model = convolutional()  # in training mode: evaluation mode is for the inner pass
    together = Fast(penalty)(model, x, y)
    alone = [Fast(penalty)(model, x[i : i + 1], y[i : i + 1]) for i in range(len(x))]
    assert torch.allclose(together, torch.cat(alone), atol=1e-12)
    assert not torch.allclose(together, x)


def test_the_model_is_left_as_found(batch, untouched_generators) -> None:
    x, y = batch
    model = convolutional()
    model.append(nn.Sequential(nn.Identity(), nn.Sequential(nn.Identity())))
    model[1].eval()  # a frozen part, and parts in parts
    model[9][1].eval()
    modes = [part.training for part in model.modules()]
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[3].requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with untouched_generators():
        found = Fast(L1(0.1))(model, x, y)
    assert [part.training for part in model.modules()] == modes
    assert modes.count(False) == 3
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    grads = [p.grad for p in model.parameters()]
    assert torch.equal(grads[0], torch.ones_like(grads[0]))
    assert grads[1:] == [None] * (len(grads) - 1)
    assert not found.requires_grad
    assert not x.requires_grad


def test_a_method_has_the_mode_of_its_module(batch) -> None:
    x, y = batch
    model = convolutional()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    expected = Fast(L1(0.1))(model, x, y)
    assert torch.equal(Fast(L1(0.1))(model.forward, x, y), expected)
    with Fast(L1(0.1)).perturbed(model.forward, {"input": x}, y) as inputs:
        assert torch.equal(inputs["input"], expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(part.training for part in model.modules())


@pytest.mark.parametrize("penalty", [L1(0.0), ElasticNet(0.0, 0.0), GroupL2(0.0, size=4)])
@pytest.mark.parametrize("inner", ["eval", "train"])
def test_epsilon_zero_is_plain_training(penalty: Penalty, inner: str, batch) -> None:
    x, y = batch
    model, twin = convolutional(), convolutional()
    torch.manual_seed(0)
    (one,) = Fast(penalty, inner=inner).rounds(model, x, y)
    torch.manual_seed(0)
    plain = cross_entropy(twin(x), y)
    assert torch.equal(one.loss, plain)
    assert torch.equal(one.x, x)
    state = twin.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


def test_a_group_without_gradient_stays_put() -> None:
    x = normal(2, 3, 8, 8, seed=1)

    def half(x: Tensor) -> Tensor:
        return x[:, :, :4].flatten(1) @ normal(96, 4, seed=2)

    y = torch.tensor([0, 1])
    moved = Fast(GroupL2(0.5, size=4))(half, x, y) - x
    assert bool(torch.isfinite(moved).all())
    assert float(moved[:, :, 4:].abs().max()) == 0
    blocks = moved[:, :, :4].unflatten(3, (2, 4)).square().sum((1, 2, 4)).sqrt()
    assert torch.allclose(blocks, torch.full_like(blocks, 0.5))


def test_pixel_budgets_and_the_valid_box(batch) -> None:
    x, y = batch
    x = SPACE.inputs(torch.rand(5, 192, dtype=x.dtype), _layout(x)).reshape(x.shape)
    model = convolutional().eval()
    std = torch.tensor(SPACE.std, dtype=x.dtype)[:, None, None]
    moved = (Fast(L1(0.03), space=SPACE, units="pixel")(model, x, y) - x) * std
    assert torch.allclose(moved.abs(), torch.full_like(moved, 0.03))
    net = ElasticNet(0.01, 0.1)
    leaf = x.clone().requires_grad_()
    (g,) = torch.autograd.grad(cross_entropy(model(leaf), y).sum(), leaf)
    moved = (Fast(net, space=SPACE, units="pixel")(model, x, y) - x) * std
    assert torch.allclose(moved, net.maximiser(g / std))
    found = Fast(L1(0.4), space=SPACE, units="pixel", box=True).perturb(model, x, y)
    pixels = SPACE.pixels(found.x.flatten(1), _layout(x))
    assert -1e-9 < float(pixels.min()) < 1e-9
    assert 1 - 1e-9 < float(pixels.max()) < 1 + 1e-9
    assert torch.allclose(found.delta, (found.x - x) * std)
    assert bool((found.gap > 0.01).all())  # the box keeps it from the maximum
    free = Fast(L1(0.4), space=SPACE, units="pixel")(model, x, y)
    assert float(SPACE.pixels(free.flatten(1), _layout(x)).max()) > 1.1


def _layout(x: Tensor):
    from moreaugrad.score.inputs import Layout

    return Layout.of((x,))


def test_bad_input_is_reported(batch) -> None:
    x, y = batch
    model = convolutional()
    with pytest.raises(ValueError, match=r"labels: expected classes from 0 to 3 .*got \[7\]"):
        Fast(L1(0.1))(model, x, torch.tensor([0, 1, 7, 3, 1]))
    with pytest.raises(ValueError, match="one value for each of the 5 samples"):
        Fast(L1(0.1))(model, x, y, loss=nn.functional.cross_entropy)
    with pytest.raises(ValueError, match="does not depend on the input"):
        Fast(L1(0.1))(lambda x: model(x).detach(), x, y)
    with pytest.raises(TypeError, match="penalty: expected"):
        Fast(0.1)
    with pytest.raises(ValueError, match="pixels need space"):
        Fast(L1(0.1), units="pixel")
    with pytest.raises(TypeError, match="floating-point"):
        Fast(L1(0.1))(model, x.long(), y)
    with torch.inference_mode(), pytest.raises(ValueError, match="inference_mode"):
        Fast(L1(0.1))(model, x, y)


@pytest.mark.parametrize("shape", [(6,), (6, 1)])
def test_a_single_logit_has_the_binary_cross_entropy_for_probabilities_too(
    shape: tuple[int, ...],
) -> None:
    output = normal(6, seed=4).reshape(shape).requires_grad_()
    p = torch.tensor([0.0, 1.0, 0.25, 0.5, 1.0, 0.0], dtype=output.dtype).reshape(shape)
    found = cross_entropy(output, p)
    theirs = nn.functional.binary_cross_entropy_with_logits(output, p, reduction="none")
    torch.testing.assert_close(found, theirs.reshape(-1))
    (slope,) = torch.autograd.grad(found.sum(), output)
    torch.testing.assert_close(slope, torch.autograd.grad(theirs.sum(), output)[0])
    hard = (p.reshape(-1) > 0.3).long()
    torch.testing.assert_close(
        cross_entropy(output, hard.to(p.dtype).reshape(shape)), cross_entropy(output, hard)
    )
