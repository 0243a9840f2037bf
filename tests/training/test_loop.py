"""One step of training: what the weights are after it, however the batch is cut."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from moreaugrad.penalties import L1
from moreaugrad.training import Fast
from moreaugrad.training.inner import InnerProblem
from moreaugrad.training.loop import SCHEDULES, Piece, Trainer
from moreaugrad.training.protocol import Protocol
from moreaugrad.training.rounds import Round


@dataclass(frozen=True, kw_only=True, eq=False)
class Rounds(Protocol):
    """Plain cross-entropy, `count` times on a batch; keeps the gradients after each."""

    count: int = 1
    seen: list[Any] = field(default_factory=list)

    def _rounds(self, problem: InnerProblem) -> Iterator[Round]:
        x = problem.x
        nothing = torch.full((len(x),), torch.nan)
        for _number in range(self.count):
            loss = problem.values(x)
            yield Round(loss=loss, x=x, delta=problem.zero(), h=nothing, norm=nothing, gap=nothing)
            self.seen.append(next(problem.model.parameters()).grad)


def network(*, norm: bool = False, dropout: float = 0.0) -> nn.Module:
    generator = torch.Generator().manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4) if norm else nn.Identity(), nn.SiLU(),
        nn.Dropout(dropout), nn.Flatten(), nn.Linear(4 * 16, 3),
    )  # fmt: skip
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(torch.randn(weight.shape, generator=generator) * 0.3)
    return model.double()


def batch(count: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(count, 3, 6, 6, generator=generator, dtype=torch.float64)
    return x, torch.arange(count) % 3


def pieces(x: Tensor, y: Tensor, shards: int) -> list[Piece]:
    cuts = [len(x) * number // shards for number in range(shards + 1)]
    return [
        Piece(number=n, x=x[a:b], y=y[a:b], ids=torch.arange(a, b))
        for n, (a, b) in enumerate(pairwise(cuts))
    ]


def trained(model: nn.Module, shards: int, *, steps: int = 2, **more: Any) -> dict[str, Tensor]:
    x, y = batch()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    protocols = [Rounds() for _ in range(shards)]
    trainer = Trainer(model, optimiser, protocols, pieces=shards, **more)
    for step in range(steps):
        trainer.step(pieces(x, y, shards), count=len(x), step=step)
    return model.state_dict()


def test_a_step_is_that_of_the_mean_loss() -> None:
    model, x, y = network(), *batch()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    for name, value in trained(network(), 1).items():
        torch.testing.assert_close(value, model.state_dict()[name])


def test_pieces_make_the_same_step_as_the_whole() -> None:
    whole = trained(network(), 1)
    for shards in (2, 3, 4):
        for name, value in trained(network(), shards).items():
            torch.testing.assert_close(value, whole[name])


def test_statistics_are_the_mean_over_the_pieces() -> None:
    model, x, y = network(norm=True), *batch()
    seen = []
    for part in pieces(x, y, 2):
        one = network(norm=True)
        one(part.x)
        seen.append(one[1].running_var)
    trained(model, 2, steps=1)
    torch.testing.assert_close(model[1].running_var, (seen[0] + seen[1]) / 2)
    assert model[1].num_batches_tracked == 1


def test_frozen_statistics_are_used_and_stay() -> None:
    model, x, y = network(norm=True), *batch()
    nn.init.uniform_(model[1].running_mean, -1, 1)
    nn.init.uniform_(model[1].running_var, 0.5, 2)
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    whole = trained(copy.deepcopy(model), 1, freeze_statistics=True)
    assert all(torch.equal(whole[name], value) for name, value in buffers.items())
    for name, value in trained(copy.deepcopy(model), 3, freeze_statistics=True).items():
        torch.testing.assert_close(value, whole[name])
    optimiser = torch.optim.SGD(model.eval().parameters(), lr=0.1, momentum=0.9)
    for _ in range(2):
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimiser.step()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, whole[name])


def test_each_round_is_one_update_and_every_protocol_is_run_to_its_end() -> None:
    model, x, y = network(), *batch()
    protocols = [Rounds(count=3), Rounds(count=3)]
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    updates = []
    optimiser.register_step_post_hook(lambda *_: updates.append(1))
    trainer = Trainer(model, optimiser, protocols, pieces=2)
    tally = trainer.step(pieces(x, y, 2), count=6, step=0)
    assert len(updates) == 3
    assert [len(protocol.seen) for protocol in protocols] == [3, 3]
    # Sums over samples and rounds; h, norm and gap are not defined here.
    assert tally[1].tolist() == [18, 0, 0, 0]


def test_figures_are_those_of_the_perturbation() -> None:
    model, x, y = network(), *batch()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, optimiser, [Fast(L1(0.05))])
    found = Fast(L1(0.05)).perturb(model, x, y)
    tally = trainer.step(pieces(x, y, 1), count=6, step=0)
    assert float(tally[0, 2]) == pytest.approx(float(found.norm.sum()))
    assert tally[1].tolist() == [6, 6, 6, 6]


def test_dropout_is_a_function_of_seed_step_and_piece(untouched_generators: Any) -> None:
    models = [network(dropout=0.5) for _ in range(3)]
    with untouched_generators():
        first, again, other = (
            trained(model, 2, seed=seed) for model, seed in zip(models, (1, 1, 2), strict=True)
        )
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not all(torch.equal(first[name], other[name]) for name in first)


def test_a_loss_that_is_not_finite_leaves_the_weights() -> None:
    model, x, y = network(), *batch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    x[4] = torch.inf
    trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), [Rounds(), Rounds()],
                      pieces=2)  # fmt: skip
    with pytest.raises(FloatingPointError, match="the loss has become nan"):
        trainer.step(pieces(x, y, 2), count=6, step=0)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_labels_outside_the_classes_are_reported() -> None:
    model, x, y = network(), *batch()
    trainer = Trainer(model, torch.optim.SGD(model.parameters(), lr=0.1), [Rounds()])
    with pytest.raises(ValueError, match="expected classes from 0 to 2"):
        trainer.step(pieces(x, y + 1, 1), count=6, step=0)


def test_mixed_precision_keeps_the_weights_type() -> None:
    model, (x, y) = network().float(), batch()
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1)
    trainer = Trainer(model, optimiser, [Rounds()], amp=torch.bfloat16)
    exact = trained(network().float().double(), 1, steps=1)
    trainer.step(pieces(x.float(), y, 1), count=6, step=0)
    for name, value in model.state_dict().items():
        assert value.dtype == torch.float32
        torch.testing.assert_close(value.double(), exact[name], rtol=0.05, atol=0.02)


def test_schedules() -> None:
    shapes = {name: [rate(step, 100) for step in range(100)] for name, rate in SCHEDULES.items()}
    assert set(shapes["constant"]) == {1.0}
    assert shapes["cosine"][0] == 1
    assert shapes["cosine"][50] == pytest.approx(0.5)
    assert shapes["cosine"][99] < 0.01
    assert shapes["one-cycle"][0] == pytest.approx(0.01)
    assert max(shapes["one-cycle"]) == pytest.approx(1, abs=1e-3)
    assert 28 <= shapes["one-cycle"].index(max(shapes["one-cycle"])) <= 31
    assert shapes["one-cycle"][99] == pytest.approx(0.01)
    assert [rate(0, 1) for rate in SCHEDULES.values()] == [1.0, 1.0, pytest.approx(1.0)]
