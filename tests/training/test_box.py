"""Steps within the valid inputs: held against foolbox, whose attacks cut after each step."""

import warnings
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

import toys
from moreaugrad.penalties import L1, ElasticNet, GroupL2, Penalty
from moreaugrad.score.inputs import InputSpace
from moreaugrad.training import ConditionalGradient, Iterative, Momentum, ProjectedMaximiser
from moreaugrad.training.penalty import Adversary

EPSILON, STEPS, DECAY = 1.0, 12, 0.1
Y = torch.tensor([0, 1, 2, 3, 0, 1])


@pytest.fixture(scope="module")
def foolbox() -> ModuleType:
    with warnings.catch_warnings():
        # It imports names that scipy will drop.
        warnings.simplefilter("ignore", DeprecationWarning)
        return pytest.importorskip("foolbox")


@pytest.fixture
def model() -> nn.Module:
    return toys.network((12, 16, 4))


@pytest.fixture
def x() -> Tensor:
    """Half of the entries lie at an end of the box."""
    x = torch.sigmoid(3 * toys.normal(6, 12, seed=4))
    x[:, ::2] = x[:, ::2].round()
    return x


def gradient(model: nn.Module, x: Tensor) -> Tensor:
    leaf = x.clone().requires_grad_()
    loss = nn.functional.cross_entropy(model(leaf), Y, reduction="sum")
    return torch.autograd.grad(loss, leaf)[0]


def boxed(kind: type[Adversary], penalty: Penalty, **settings: object) -> Adversary:
    return kind(penalty, space=InputSpace(), box=True, **settings)  # type: ignore[call-arg]


def test_projected_steps_are_those_of_foolbox(
    foolbox: ModuleType, model: nn.Module, x: Tensor
) -> None:
    step = 0.25
    ours = boxed(
        Iterative, L1(EPSILON), steps=STEPS, step=step, update=ProjectedMaximiser(), start="zero"
    )
    attack = foolbox.attacks.LinfPGD(steps=STEPS, abs_stepsize=step * EPSILON, random_start=False)
    theirs = attack.run(
        foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"),
        x,
        foolbox.criteria.Misclassification(Y),
        epsilon=EPSILON,
    )
    torch.testing.assert_close(ours(model, x, Y), theirs, rtol=0, atol=1e-12)


def test_momentum_is_dong_et_al_cut_after_each_step(model: nn.Module, x: Tensor) -> None:
    """Literally; foolbox's has no ||g||_1, by which Dong et al. divide."""
    adv, velocity = x, torch.zeros_like(x)
    for _ in range(STEPS):
        g = gradient(model, adv)
        velocity = DECAY * velocity + g / g.abs().sum(1, keepdim=True)
        adv = (adv + EPSILON / STEPS * velocity.sign()).clamp(0, 1)
    found = boxed(Momentum, L1(EPSILON), steps=STEPS, decay=DECAY)(model, x, Y)
    torch.testing.assert_close(found, adv, rtol=0, atol=1e-12)


@pytest.mark.parametrize("penalty", [L1(EPSILON), GroupL2(EPSILON, 4), ElasticNet(0.2, 0.1)])
@pytest.mark.parametrize("start", ["maximiser", "zero"])
def test_every_gradient_is_taken_where_the_perturbation_lies(
    penalty: Penalty, start: str, model: nn.Module, x: Tensor
) -> None:
    """Without a cut after each step, delta runs away behind the box and turns back too late."""
    settings = {"steps": STEPS, "step": 0.4, "update": ConditionalGradient(), "start": start}
    found = boxed(Iterative, penalty, **settings).perturb(model, x, Y)

    def cut(delta: Tensor) -> Tensor:
        return (x + delta).clamp(0, 1) - x

    delta = torch.zeros_like(x)
    if start == "maximiser":
        delta = cut(penalty.maximiser(gradient(model, x + delta)))
    for _ in range(STEPS):
        delta = cut(0.6 * delta + 0.4 * penalty.maximiser(gradient(model, x + delta)))
    torch.testing.assert_close(found.delta, delta, rtol=0, atol=1e-12)
