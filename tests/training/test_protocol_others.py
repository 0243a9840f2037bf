"""Penalised training, noise, harmonisation, losses, mixed precision, the registry."""

from contextlib import nullcontext

import pytest
import torch
from torch import Tensor, nn

from moreaugrad.penalties import L1, Box, ElasticNet, GroupL2, Penalty, SquaredL2
from moreaugrad.score.inputs import InputSpace, Layout
from moreaugrad.training import (
    LOSSES,
    PROTOCOLS,
    Fast,
    Free,
    GaussianNoise,
    Harmonisation,
    Iterative,
    Momentum,
    Penalised,
    Plain,
    PublishedHarmonisation,
    build,
    cross_entropy,
    hinge,
)
from toys import network, normal

X = normal(5, 3, 8, 8, seed=3)
Y = torch.tensor([0, 1, 2, 3, 1])
SPACE = InputSpace(mean=0.5, std=(0.2, 0.3, 0.4))
ATTENTION = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)).double() * 0.8


def smooth() -> nn.Sequential:
    """Inputs [B, 3, 8, 8], 4 classes, twice differentiable."""
    return nn.Sequential(nn.Flatten(), *network([192, 16, 4]))


def weight_gradient(total: Tensor, model: nn.Module) -> Tensor:
    return torch.cat([g.flatten() for g in torch.autograd.grad(total, list(model.parameters()))])


@pytest.mark.parametrize("loss", [cross_entropy, hinge])
@pytest.mark.parametrize(
    "penalty",
    [L1(0.02), GroupL2(0.3, size=4), ElasticNet(0.02, 0.1), SquaredL2(0.1), Harmonisation(0.3)],
    ids=lambda penalty: type(penalty).__name__,
)
@pytest.mark.parametrize("units", ["input", "pixel"])
def test_penalised_gradient_is_that_of_finite_differences(penalty, loss, units: str) -> None:
    model = smooth()
    protocol = Penalised(penalty, weight=0.7, space=SPACE, units=units)

    def total() -> Tensor:
        (r,) = protocol.rounds(model, X, Y, loss=loss, attention=ATTENTION)
        return r.loss.mean()

    weights = model[1].weight
    direction = normal(*weights.shape, seed=9)
    (found,) = torch.autograd.grad(total(), weights)
    values = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            weights += step * direction
        values.append(float(total().detach()))
        with torch.no_grad():
            weights -= step * direction
    slope = (values[0] - values[1]) / 2e-6
    assert slope == pytest.approx(float((found * direction).sum()), rel=1e-4, abs=1e-7)


def test_penalised_value_is_loss_plus_penalty_of_each_sample() -> None:
    model, penalty = smooth(), ElasticNet(0.02, 0.1)
    (r,) = Penalised(penalty, weight=0.7).rounds(model, X, Y)
    for i in range(len(X)):
        leaf = X[i : i + 1].clone().requires_grad_()
        own = cross_entropy(model(leaf), Y[i : i + 1])
        (g,) = torch.autograd.grad(own.sum(), leaf)
        expected = float((own + 0.7 * penalty.value(g)).detach())
        assert float(r.loss[i].detach()) == pytest.approx(expected, abs=1e-12)
    assert torch.allclose(r.gap, torch.zeros_like(r.gap), atol=1e-10)
    assert all(weight.grad is None for weight in model.parameters())


def test_penalised_has_no_nan_where_gradients_vanish() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 4).double())
    with torch.no_grad():
        model[1].weight.reshape(4, 3, 8, 8)[..., :4] = 0  # the left blocks have no gradient
    (r,) = Penalised(GroupL2(0.3, size=4)).rounds(model, X, Y)
    assert bool(torch.isfinite(weight_gradient(r.loss.sum(), model)).all())


def test_penalised_may_take_its_gradient_in_evaluation_mode() -> None:
    model = nn.Sequential(nn.Dropout(0.5), smooth()).train()
    (r,) = Penalised(L1(0.02), inner="eval").rounds(model, X, Y)
    norms = []
    for _ in range(2):
        (again,) = Penalised(L1(0.02), inner="eval").rounds(model, X, Y)
        norms.append(again.gap)
    assert model[0].training
    assert torch.allclose(*norms, atol=1e-12)
    assert r.loss.requires_grad
    with pytest.raises(ValueError, match="heuristic"):
        Penalised(PublishedHarmonisation(0.1))
    with pytest.raises(ValueError, match="box"):
        Penalised(L1(0.1), box=True, space=SPACE)


def test_penalised_without_weight_is_plain_training() -> None:
    model = smooth()
    for protocol in (Penalised(L1(0.0)), Penalised(L1(0.1), weight=0.0)):
        (r,) = protocol.rounds(model, X, Y)
        (plain,) = Plain().rounds(model, X, Y)
        assert torch.equal(r.loss, plain.loss)
        ours, theirs = (weight_gradient(one.loss.mean(), model) for one in (r, plain))
        assert torch.equal(ours, theirs)


def test_noise_is_keyed_by_id_and_call(untouched_generators) -> None:
    model = smooth()
    noise = GaussianNoise(0.5, seed=4)
    with untouched_generators():
        (first,) = noise.rounds(model, X, Y, ids=range(10, 15))
        state = noise.state_dict()
        (second,) = noise.rounds(model, X, Y, ids=range(10, 15))
    assert not torch.allclose(first.x, second.x)
    again = GaussianNoise(0.5, seed=4)
    again.load_state_dict(state)
    (resumed,) = again.rounds(model, X[2:], Y[2:], ids=[12, 13, 14])
    assert torch.equal(resumed.x, second.x[2:])
    (r,) = GaussianNoise(0.5).rounds(nn.Sequential(nn.Flatten(), nn.Linear(49152, 4)),
        torch.zeros(4, 3, 128, 128), Y[:4])  # fmt: skip
    assert float(r.x.mean()) == pytest.approx(0, abs=0.005)
    assert float(r.x.std()) == pytest.approx(0.5, abs=0.005)
    (still,) = GaussianNoise(0.0).rounds(model, X, Y)
    assert torch.equal(still.x, X)
    (pixels,) = GaussianNoise(0.1, space=SPACE, units="pixel", seed=4).rounds(model, X, Y)
    (units,) = GaussianNoise(0.1, seed=4).rounds(model, X, Y)
    std = torch.tensor(SPACE.std).double()[:, None, None]
    assert torch.allclose((pixels.x - X) * std, units.x - X)
    with pytest.raises(ValueError, match="sigma"):
        GaussianNoise(-1.0)


def test_harmonisation_moves_most_where_nobody_looks() -> None:
    model = smooth()
    leaf = X.clone().requires_grad_()
    (g,) = torch.autograd.grad(cross_entropy(model(leaf), Y).sum(), leaf)
    delta = Fast(Harmonisation(0.5, floor=0.1))(model, X, Y, attention=ATTENTION) - X
    peak = ATTENTION.amax((1, 2, 3), keepdim=True)
    assert torch.allclose(delta, 2 * 0.5 * (peak - ATTENTION + 0.1) * g)
    length = g.flatten(1).norm(dim=1)[:, None, None, None]
    rule = PublishedHarmonisation(0.5)
    found = Fast(rule).perturb(model, X, Y, attention=ATTENTION)
    assert torch.allclose(found.delta, 2 * 0.5 * (0.5 - ATTENTION) * g / length)
    assert bool(found.h.isnan().all())
    assert bool(found.gap.isnan().all())
    printed = Fast(PublishedHarmonisation(0.5, peak=True)).perturb(model, X, Y, attention=ATTENTION)
    assert torch.allclose(printed.delta, 0.5 * (peak - 2 * ATTENTION) * g / length)
    for rule in (Harmonisation(0.0), PublishedHarmonisation(0.0)):
        assert torch.equal(Fast(rule)(model, X, Y, attention=ATTENTION), X)


@pytest.mark.parametrize("adversary", [Iterative, Momentum])
def test_harmonisation_in_every_protocol(adversary) -> None:
    moved = adversary(Harmonisation(0.5))(smooth(), X, Y, attention=ATTENTION)
    assert not torch.allclose(moved, X)
    free = Free(Harmonisation(0.5), replays=2)
    for r in free.rounds(smooth(), X, Y, attention=ATTENTION):
        r.loss.mean().backward()
    assert float(r.norm.min()) > 0


def test_bad_attention_is_reported() -> None:
    model, rule = smooth(), Fast(Harmonisation(0.5))
    bad = ATTENTION.clone()
    with pytest.raises(ValueError, match="needs a map for each image"):
        rule(model, X, Y)
    with pytest.raises(ValueError, match=r"expected shape \(5, 1, 8, 8\)"):
        rule(model, X, Y, attention=ATTENTION[..., :4])
    bad[2, 0, 1, 1] = 1.5
    with pytest.raises(ValueError, match=r"in \[0, 1\], got others in sample\(s\) \[2\]"):
        rule(model, X, Y, attention=bad)
    bad[2, 0, 1, 1] = torch.nan
    with pytest.raises(ValueError, match=r"sample\(s\) \[2\]"):
        rule(model, X, Y, attention=bad)
    bad[2] = 0
    with pytest.raises(ValueError, match=r"only zeros in sample\(s\) \[2\]"):
        rule(model, X, Y, attention=bad)
    with pytest.raises(ValueError, match="epsilon"):
        Harmonisation(-1.0)


def test_images_without_anything_to_look_at() -> None:
    model, attention = smooth(), ATTENTION.clone()
    attention[2] = 0
    plain = Fast(SquaredL2(0.5 * 1.1))(model, X, Y)
    found = Fast(Harmonisation(0.5, floor=0.1, blank=True))(model, X, Y, attention=attention)
    assert torch.allclose(found[2], plain[2])
    rest = [0, 1, 3, 4]
    seen = Fast(Harmonisation(0.5, floor=0.1))(model, X, Y, attention=ATTENTION)
    assert torch.allclose(found[rest], seen[rest])


@pytest.mark.parametrize("name", PROTOCOLS)
def test_one_autocast_around_all_rounds(name: str) -> None:
    """Each round is taken at the weights that the one before it has left."""
    kind = PROTOCOLS[name]
    found = []
    for around in (torch.autocast("cpu", torch.bfloat16), nullcontext()):
        model, x = smooth().float(), X.float()
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
        rounds = build(name, L1(0.01) if "penalty" in kind.needs() else None).rounds(model, x, Y)
        losses = []
        with around:
            while True:
                with torch.autocast("cpu", torch.bfloat16):
                    r = next(rounds, None)
                if r is None:
                    break
                optimiser.zero_grad()
                r.loss.mean().backward()
                optimiser.step()
                losses.append(float(r.loss.detach().mean()))
        found.append(losses)
    assert found[0] == found[1]


@pytest.mark.parametrize("name", PROTOCOLS)
def test_bfloat16_autocast(name: str) -> None:
    kind = PROTOCOLS[name]
    protocol = build(name, L1(0.1) if "penalty" in kind.needs() else None)
    model = smooth().float().train()
    x = X.float()
    with torch.autocast("cpu", torch.bfloat16):
        for r in protocol.rounds(model, x, Y):
            model.zero_grad()
            r.loss.mean().backward()
            assert r.x.dtype == torch.float32
            assert all(bool(torch.isfinite(w.grad).all()) for w in model.parameters())
            assert all(w.grad.dtype == torch.float32 for w in model.parameters())
    assert not torch.is_autocast_enabled("cpu")
    if name == "fast":
        assert torch.allclose((r.x - x).abs().amax(), torch.tensor(0.1))


@pytest.mark.parametrize("loss", [cross_entropy, hinge])
def test_losses_and_lengths_are_in_single_precision_whatever_passes_are(loss) -> None:
    model, x = smooth().float(), X.float()
    with torch.autocast("cpu", torch.bfloat16):
        (r,) = Fast(ElasticNet(0.02, 0.1)).rounds(model, x, Y, loss=loss)
        output = model(r.x)
    assert output.dtype == torch.bfloat16
    assert {value.dtype for value in (r.loss, r.h, r.norm, r.gap)} == {torch.float32}
    assert torch.equal(r.loss, loss(output.float(), Y))
    # The gap of a one-step answer is zero but for rounding: not for that of bfloat16.
    assert float(r.gap.abs().max()) < 1e-6


def test_inputs_of_half_precision_keep_their_type() -> None:
    model = smooth().bfloat16()
    found = Fast(ElasticNet(0.1, 0.1)).perturb(model, X.bfloat16(), Y)
    assert found.x.dtype == torch.bfloat16
    assert found.norm.dtype == torch.float32
    assert torch.equal(found.x, (X.bfloat16() + found.delta).bfloat16())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("penalty", [L1(0.01), GroupL2(0.003, size=4)])
def test_rounding_leaves_no_norm(penalty: Penalty, dtype: torch.dtype) -> None:
    """h is an indicator: what is reported must be feasible, whatever the inputs' rounding is."""
    model = smooth().to(dtype)
    x = (SPACE.inputs(torch.rand(5, 192), Layout.of((X,))).reshape(X.shape)).to(dtype)
    rules = [
        rule(penalty, space=SPACE, units=units, box=True)
        for rule in (Fast, Iterative, Momentum, Iterative.published)
        for units in ("input", "pixel")
    ]
    for rule in rules:
        assert rule.perturb(model, x, Y).h.tolist() == [0.0] * 5
    for r in Free(penalty, space=SPACE, box=True).rounds(model, x, Y):
        r.loss.mean().backward()
        assert r.h.tolist() == [0.0] * 5


def test_validation_may_run_without_gradients() -> None:
    model = smooth()
    with torch.no_grad():
        (r,) = Fast(L1(0.1)).rounds(model, X, Y)
    assert not r.loss.requires_grad
    assert float(r.loss.mean()) > float(cross_entropy(model(X), Y).detach().mean())


def test_losses_by_hand() -> None:
    output = torch.tensor([[2.0, 0.5, -1.0], [0.0, 3.0, 2.5]])
    y = torch.tensor([0, 2])
    assert torch.allclose(cross_entropy(output, y), -output.log_softmax(1)[[0, 1], y])
    assert hinge(output, y).tolist() == [0.0, 1.5]
    single, both = torch.tensor([0.3, -2.0]), torch.tensor([1, 0])
    pair = torch.stack([torch.zeros(2), single], 1)
    for shape in ((2,), (2, 1)):
        evidence = single.reshape(shape)
        assert torch.allclose(cross_entropy(evidence, both), cross_entropy(pair, both))
        assert torch.allclose(hinge(evidence, both), torch.tensor([0.7, 0.0]))
    maps = normal(2, 3, 4, 5, seed=0)
    labels = torch.randint(3, (2, 4, 5), generator=torch.Generator().manual_seed(0))
    expected = nn.functional.cross_entropy(maps, labels, reduction="none").mean((1, 2))
    assert torch.allclose(cross_entropy(maps, labels), expected)
    pixels = hinge(maps.permute(0, 2, 3, 1).reshape(-1, 3), labels.flatten())
    assert torch.allclose(hinge(maps, labels.int()), pixels.reshape(2, -1).mean(1))
    soft = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])
    assert torch.allclose(cross_entropy(output, soft)[1], cross_entropy(output, y)[1])
    for loss in LOSSES.values():
        with pytest.raises(ValueError, match=r"got \[-1, 3\] in 2 of 2"):
            loss(output, torch.tensor([3, -1]))


def test_the_registry_builds_each() -> None:
    for name, kind in PROTOCOLS.items():
        penalty = L1(0.1) if "penalty" in kind.needs() else None
        built = build(name, penalty, seed=3)
        assert type(built) is kind.load()
        assert built.seed == 3
        assert set(kind.defaults()) == set(kind.defaults()) - {"penalty", "tally", "memory"}
    assert build("iterative", L1(0.1)).update == PROTOCOLS["iterative"].defaults()["update"]
    with pytest.raises(ValueError, match="protocol"):
        build("fasst", L1(0.1))
    with pytest.raises(ValueError, match="has no setting 'stepz'"):
        build("iterative", L1(0.1), stepz=3)
    with pytest.raises(ValueError, match="takes no penalty"):
        build("plain", L1(0.1))
    with pytest.raises(ValueError, match="takes a penalty"):
        build("fast")


def test_labels_are_integers_or_probabilities() -> None:
    model = smooth()
    output = model(X)
    share = torch.softmax(output.detach(), 1)
    assert cross_entropy(output, share).shape == Y.shape
    assert torch.equal(cross_entropy(output, Y.int()), cross_entropy(output, Y))
    with pytest.raises(ValueError, match="labels: expected integers, or probabilities"):
        cross_entropy(output, Y.double())


class Ellipse(Penalty):
    """R(u) = ||A u||_2: a penalty that no protocol knows of."""

    scale = torch.linspace(0.1, 0.5, 192, dtype=torch.float64).reshape(3, 8, 8)

    def value(self, u: Tensor) -> Tensor:
        return (self.scale * u).flatten(1).norm(dim=1)

    def prox(self, u: Tensor, tau: object) -> Tensor:
        raise NotImplementedError

    def conjugate(self, d: Tensor) -> Tensor:
        size = (d / self.scale).flatten(1).norm(dim=1)
        return torch.where(size <= 1 + 1e-9, 0.0, torch.inf)

    def maximiser(self, g: Tensor) -> Tensor:
        return self.scale.square() * g / self.value(g)[:, None, None, None]


class Rough(Penalty):
    """R(u) = ||D u||_2^2, D the differences of neighbours along each row: of a constant 0."""

    def value(self, u: Tensor) -> Tensor:
        return u.diff(dim=3).square().flatten(1).sum(1)

    def prox(self, u: Tensor, tau: object) -> Tensor:
        raise NotImplementedError

    def conjugate(self, d: Tensor) -> Tensor:
        differences = torch.diff(torch.eye(8, dtype=d.dtype), dim=0)
        inverse = torch.linalg.pinv(2 * differences.T @ differences)
        return (d * (d @ inverse)).flatten(1).sum(1) / 2

    def maximiser(self, g: Tensor) -> Tensor:
        differences = torch.diff(torch.eye(8, dtype=g.dtype), dim=0)
        return 2 * g @ differences.T @ differences


@pytest.mark.parametrize("penalty", [Ellipse(), Rough()])
def test_any_new_penalty_works(penalty: Penalty) -> None:
    for name, kind in PROTOCOLS.items():
        if "penalty" in kind.needs():
            for r in build(name, penalty).rounds(smooth(), X, Y):
                r.loss.mean().backward()
            assert bool((r.h > 0).all() if isinstance(penalty, Rough) else (r.h == 0).all())
            assert float(r.norm.min()) > 0.1


def test_a_box_that_the_gradient_leaves_is_refused() -> None:
    with pytest.raises(ValueError, match="outside the box"):
        Fast(Box(-1e-9, 1e-9))(smooth(), X, Y)
