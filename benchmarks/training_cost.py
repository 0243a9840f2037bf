"""What the training protocols cost compared with the passes that they cannot do without."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks import subjects
from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.timing import timed
from moreaugrad.penalties import L1, ElasticNet, GroupL2, Penalty
from moreaugrad.training import Fast, Free, Iterative, Momentum, Penalised, Plain, Protocol

ROUNDS, MOST = 5, 1.10
REPLAYS, STEPS = 4, 7
ONWARD = "free, with input"


@dataclass(frozen=True, kw_only=True)
class Case:
    """size: of the images. group: of the blocks of pixels."""

    label: str
    network: str
    size: int
    batch: int
    classes: int
    group: int


CASES = (
    Case(label="ResNet-20, 32 px", network="resnet20", size=32, batch=64, classes=10, group=4),
    Case(
        label="SqueezeNet, 128 px", network="squeezenet", size=128, batch=8, classes=1000, group=16
    ),
)


class Trainer:
    """Steps of SGD on one batch, by a protocol or by hand."""

    def __init__(self, case: Case) -> None:
        self.model = copy.deepcopy(subjects.load(case.network).module)
        self.model.train().requires_grad_(True)
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(case.batch, 3, case.size, case.size, generator=generator)
        self.y = torch.randint(case.classes, (case.batch,), generator=generator)
        self.optimiser = torch.optim.SGD(self.model.parameters(), lr=1e-5)

    def update(self, loss: Tensor) -> None:
        self.optimiser.zero_grad()
        loss.mean().backward()
        self.optimiser.step()

    def by(self, protocol: Protocol) -> None:
        for found in protocol.rounds(self.model, self.x, self.y):
            self.update(found.loss)

    def by_hand(self, inner: int, updates: int, onward: bool) -> None:
        """The bare passes: `inner` input gradients in evaluation mode, then plain updates.

        onward: the updates' backward pass gives the gradient of the input as well.
        """
        self.model.eval()
        for _ in range(inner):
            x = self.x.clone().requires_grad_()
            torch.autograd.grad(cross_entropy(self.model(x), self.y, reduction="sum"), x)
        self.model.train()
        for _ in range(updates):
            x = self.x.clone().requires_grad_() if onward else self.x
            self.update(cross_entropy(self.model(x), self.y))


def run(context: Context) -> Result:
    rounds = 1 if context.quick else ROUNDS
    figures: dict[str, dict[str, float]] = {}
    rows: list[list[object]] = []
    for case in CASES[:1] if context.quick else CASES:
        figures[case.label] = {}
        for name, (protocol, inner, updates) in _protocols(case).items():
            bare = partial(Trainer.by_hand, inner=inner, updates=updates, onward=ONWARD in name)
            seconds = _best(Trainer(case), protocol, bare, rounds)
            ratio = seconds[0] / seconds[1]
            figures[case.label][name] = ratio
            rows.append(
                [case.label, name, inner, updates, *(round(s, 4) for s in seconds), round(ratio, 3)]
            )
            print("  " + " ".join(map(str, rows[-1])), flush=True)
    return Result(
        title="Cost of the training protocols",
        settings={"rounds": rounds, "replays": REPLAYS, "steps": STEPS},
        figures={"protocol / its passes": figures},
        tables=[
            Table(
                caption="Seconds of one batch: the protocol, and its bare passes.",
                header=["", "protocol", "inner", "updates", "protocol", "passes", "ratio"],
                rows=rows,
            )
        ],
        notes=[
            f"the best of {rounds} rounds, protocol and passes in turns; at most {MOST} is wanted",
            "passes: input gradients in evaluation mode, then updates, without any perturbation",
            "free: its updates compared with plain ones; their backward pass goes on to the input",
            "free, with input: compared with plain updates that go back to the input too",
            "penalised compared with two passes: what differentiating a gradient adds",
        ],
    )


def _protocols(case: Case) -> dict[str, tuple[Protocol, int, int]]:
    """Each with the inner passes and the updates that it needs."""
    penalties: dict[str, Penalty] = {
        "L1": L1(0.02),
        "groups": GroupL2(0.3, size=case.group),
        "elastic net": ElasticNet(0.02, 0.1),
    }
    found: dict[str, tuple[Protocol, int, int]] = {"plain": (Plain(), 0, 1)}
    for name, penalty in penalties.items():
        found[f"fast, {name}"] = (Fast(penalty), 1, 1)
        found[f"iterative, {name}"] = (Iterative(penalty, steps=STEPS), STEPS + 1, 1)
        found[f"free, {name}"] = (Free(penalty, replays=REPLAYS), 0, REPLAYS)
    found[f"{ONWARD}, L1"] = (Free(L1(0.02), replays=REPLAYS), 0, REPLAYS)
    found["momentum, L1"] = (Momentum(L1(0.02), steps=STEPS), STEPS, 1)
    found["penalised, L1"] = (Penalised(L1(0.02)), 1, 1)
    return found


def _best(
    trainer: Trainer, protocol: Protocol, bare: Callable[[Trainer], None], rounds: int
) -> tuple[float, float]:
    """Least seconds of the protocol and of its passes, in turns after one that does not count."""
    works = partial(trainer.by, protocol), partial(bare, trainer)
    times = [[timed(work) for work in works] for _ in range(rounds + 1)][1:]
    ours, theirs = zip(*times, strict=True)
    return min(ours), min(theirs)
