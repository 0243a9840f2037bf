"""Free training against a literal loop, whatever the caller differentiates."""

import copy

import pytest
import torch
from torch import Tensor, nn

from moreaugrad.penalties import L1, ElasticNet, GroupL2
from moreaugrad.score.inputs import InputSpace
from moreaugrad.training import Free, ProjectedMaximiser, cross_entropy
from toys import normal

EPSILON = 0.05


def network() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(216, 4)
        )
    return net.double()


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    sizes = [5, 5, 3, 5][:count]
    return [
        (normal(size, 3, 8, 8, seed=i), (torch.arange(size) + i) % 4)
        for i, size in enumerate(sizes)
    ]


def literal(model: nn.Module, replays: int) -> Tensor:
    """Shafahi et al. (2019): one tensor for all batches, cut to each one's size."""
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    delta = torch.zeros(5, 3, 8, 8, dtype=torch.float64)
    for x, y in batches():
        for _ in range(replays):
            noise = delta[: len(x)].clone().requires_grad_()
            optimiser.zero_grad()
            nn.functional.cross_entropy(model(x + noise), y).backward()
            delta[: len(x)] += EPSILON * noise.grad.sign()
            delta.clamp_(-EPSILON, EPSILON)
            optimiser.step()
    return delta


def train(model: nn.Module, free: Free, reduce=Tensor.mean) -> None:
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y in batches():
        for r in free.rounds(model, x, y):
            optimiser.zero_grad()
            reduce(r.loss).backward()
            optimiser.step()


def same(one: nn.Module, other: nn.Module) -> bool:
    state = other.state_dict()
    return all(torch.allclose(v, state[k], atol=1e-12) for k, v in one.state_dict().items())


def test_it_is_the_published_loop() -> None:
    ours, theirs = network().train(), network().train()
    free = Free(L1(EPSILON), replays=3)
    train(ours, free)
    delta = literal(theirs, 3)
    assert same(ours, theirs)
    assert torch.allclose(free.state_dict()["delta"], delta, atol=1e-12)


@pytest.mark.parametrize("penalty", [ElasticNet(0.01, 0.05), GroupL2(0.3, size=4)])
def test_the_perturbation_does_not_see_the_scale_of_the_loss(penalty) -> None:
    def weighted(loss: Tensor) -> Tensor:
        return (loss * torch.linspace(0.1, 1000, len(loss), dtype=loss.dtype)).sum()

    frozen = torch.nn.Sequential(*network()).eval()
    x, y = batches()[0]
    deltas = []
    for reduce in (Tensor.mean, weighted):
        free = Free(penalty)
        for r in free.rounds(frozen, x, y):
            reduce(r.loss).backward()
        deltas.append(free.state_dict()["delta"])
    assert torch.allclose(*deltas, atol=1e-12)
    assert float(deltas[0].abs().max()) > 0


def test_a_gradient_scaler_may_skip_a_step() -> None:
    frozen = network().eval()
    x, y = batches()[0]
    free = Free(L1(EPSILON), replays=2)
    first, second = (r for r in _driven(free, frozen, x, y, [torch.inf, 2.0**16]))
    assert float(first.norm.max()) == 0
    assert float(second.norm.max()) == 0  # the step that overflowed moved nothing
    assert torch.allclose(free.state_dict()["delta"].abs().amax(), torch.tensor(EPSILON).double())
    net = Free(ElasticNet(0.01, 0.05), replays=2)
    _, third = _driven(net, frozen, x, y, [1.0, torch.inf])
    assert float(third.norm.min()) > 0
    assert torch.equal(perturbed(net, x), third.x)  # and not shrunk towards zero
    masked = Free(L1(EPSILON), replays=1)
    for r in masked.rounds(frozen, x, y):
        (r.loss * torch.tensor([1, 0, 1, 1, 1])).sum().backward()
    moved = masked.state_dict()["delta"].flatten(1).abs().amax(1) > 0
    assert moved.tolist() == [True, False, True, True, True]


def perturbed(free: Free, x: Tensor) -> Tensor:
    return x + free.state_dict()["delta"]


def _driven(free: Free, model: nn.Module, x: Tensor, y: Tensor, scales: list[float]):
    for r, scale in zip(free.rounds(model, x, y), scales, strict=True):
        (scale * r.loss.mean()).backward()
        yield r


def test_it_resumes_where_it_was() -> None:
    whole, half = network().train(), network().train()
    free, before = Free(L1(EPSILON)), Free(L1(EPSILON))
    train(whole, free)
    train(half, before)
    after = Free(L1(EPSILON))
    after.load_state_dict({k: v.clone() for k, v in before.state_dict().items()})
    train(whole, free)
    train(half, after)
    assert all(torch.equal(v, half.state_dict()[k]) for k, v in whole.state_dict().items())


def test_epsilon_zero_is_plain_training_with_replays() -> None:
    ours, theirs = network().train(), network().train()
    train(ours, Free(L1(0.0), replays=2))
    optimiser = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for x, y in batches():
        for _ in range(2):
            optimiser.zero_grad()
            cross_entropy(theirs(x), y).mean().backward()
            optimiser.step()
    assert all(torch.equal(v, theirs.state_dict()[k]) for k, v in ours.state_dict().items())


def test_rounds_report_their_perturbation() -> None:
    model = network().eval()
    x, y = batches()[0]
    free = Free(ElasticNet(0.01, 0.05), replays=3)
    rounds = []
    for r in free.rounds(model, x, y):
        r.loss.sum().backward()
        rounds.append(r)
    assert bool(rounds[0].gap.isnan().all())
    assert torch.allclose(rounds[1].gap, torch.zeros(5).double(), atol=1e-9)
    assert torch.allclose(rounds[1].norm, (rounds[1].x - x).flatten(1).norm(dim=1))
    assert bool((rounds[2].h > 0).all())


def test_the_box_keeps_what_is_carried(untouched_generators) -> None:
    x = torch.full((2, 3, 8, 8), 0.99, dtype=torch.float64)
    model, y = network().eval(), torch.tensor([0, 1])
    free = Free(L1(EPSILON), space=InputSpace(), box=True, update=ProjectedMaximiser())
    with untouched_generators():
        for r in free.rounds(model, x, y):
            r.loss.sum().backward()
            assert float(r.x.max()) <= 1
    assert float(free.state_dict()["delta"].max()) <= 0.01 + 1e-12


def test_what_the_loop_must_do_is_reported() -> None:
    model = network()
    x, y = batches()[0]
    with pytest.raises(RuntimeError, match="backward"):
        list(Free(L1(EPSILON)).rounds(model, x, y))
    with pytest.raises(ValueError, match="replays"):
        Free(L1(EPSILON), replays=0)
    copied = copy.deepcopy(Free(L1(EPSILON)))
    assert copied.state_dict().keys() == {"calls", "checked", "overshot", "warned"}
