"""What the Lightning callback costs compared with the protocol that it calls."""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.context import Context
from benchmarks.results import Result, Table
from moreaugrad.models.packages import import_torchvision
from moreaugrad.penalties import L1
from moreaugrad.reports.statistics import Intervals
from moreaugrad.training import Fast

ROUNDS, BATCHES, BATCH, SIZE, MOST = 48, 10, 16, 32, 1.05
PENALTY = L1(0.02)
CALLBACK, STEP, LOOP = "callback", "in training_step", "own loop"


def network() -> nn.Sequential:
    """Small, so that what is not computed by it weighs more than in a usual training."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for inside, outside in ((3, 16), (16, 32), (32, 32)):
        layers += [nn.Conv2d(inside, outside, 3, padding=1), nn.BatchNorm2d(outside), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))


def data() -> DataLoader[Any]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCHES * BATCH, 3, SIZE, SIZE, generator=generator)
    y = torch.randint(10, (len(x),), generator=generator)
    return DataLoader(TensorDataset(x, y), batch_size=BATCH)


def works() -> dict[str, Callable[[], float]]:
    """Each trains once over the batches, and returns the CPU seconds of that."""
    import_torchvision()
    import lightning.pytorch as pl

    from moreaugrad.training.lightning import SparseGradients

    for name in ("lightning.pytorch", "pytorch_lightning"):
        logging.getLogger(f"{name}.utilities.rank_zero").setLevel(logging.ERROR)

    class Module(pl.LightningModule):  # type: ignore[misc]
        adversary: Fast | None = None

        def __init__(self) -> None:
            super().__init__()
            self.net = network()

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)

        def training_step(self, batch: Any, _: int) -> Tensor:
            x, y = batch
            if self.adversary is not None:
                x = self.adversary(self, x, y)
            return cross_entropy(self(x), y)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=0.01)

    class Clock(pl.Callback):  # type: ignore[misc]
        """Of the epoch alone: a fit prepares and checks much before it."""

        def on_train_epoch_start(self, *_: Any) -> None:
            self.began = time.process_time()

        def on_train_epoch_end(self, *_: Any) -> None:
            self.seconds = time.process_time() - self.began

    def fitted(module: Module, *callbacks: Any) -> float:
        clock = Clock()
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", callbacks=[*callbacks, clock], logger=False,
            enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        )  # fmt: skip
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            trainer.fit(module, data())
        return clock.seconds

    def stepped() -> float:
        module = Module()
        module.adversary = Fast(PENALTY)
        return fitted(module)

    def looped() -> float:
        net, adversary = network().train(), Fast(PENALTY)
        optimiser = torch.optim.SGD(net.parameters(), lr=0.01)
        began = time.process_time()
        for x, y in data():
            optimiser.zero_grad()
            cross_entropy(net(adversary(net, x, y)), y).backward()
            optimiser.step()
        return time.process_time() - began

    return {
        CALLBACK: lambda: fitted(Module(), SparseGradients(PENALTY)), STEP: stepped, LOOP: looped,
    }  # fmt: skip


def run(context: Context) -> Result:
    rounds = 2 if context.quick else ROUNDS
    torch.set_num_threads(1)  # the time that several threads wait would count as theirs
    found = works()
    times: dict[str, list[float]] = {name: [] for name in found}
    for turn in range(rounds + 1):
        for name, work in found.items():
            seconds = work()
            if turn:  # the first one warms up
                times[name].append(seconds)
    figures: dict[str, dict[str, float]] = {}
    rows: list[list[object]] = []
    mine = times[CALLBACK]
    for name in (STEP, LOOP):
        ratio = sum(mine) / sum(times[name])
        low, high = Intervals().of_ratio(times[name], mine)
        figures[name] = {"ratio": ratio, "low": low, "high": high}
        cost = 1000 * sum(times[name]) / len(times[name]) / BATCHES
        rows.append([name, round(cost, 2), round(ratio, 3), f"{low:.3f} to {high:.3f}"])
    cost = 1000 * sum(mine) / len(mine) / BATCHES
    return Result(
        title="Cost of the Lightning callback",
        settings={
            "rounds": rounds,
            "batches": BATCHES,
            "batch": BATCH,
            "size": SIZE,
            "protocol": repr(Fast(PENALTY)),
            "network": "three convolutions",
        },
        figures={"callback / other": figures},
        tables=[
            Table(
                caption=f"The callback takes {cost:.2f} ms a batch; the same protocol elsewhere:",
                header=["protocol called", "ms a batch", "callback / this", "95 % interval"],
                rows=rows,
            )
        ],
        notes=[
            f"{rounds} rounds in turns; CPU time of an epoch of {BATCHES} batches",
            f"in training_step: Lightning without the callback; at most {MOST} is wanted",
            "own loop: without Lightning, whose own work for a batch is the difference",
            "intervals of the ratio of means by Fieller (1954)",
        ],
    )
