"""The Lightning callback: equal to a loop of one's own, in every way that Lightning trains."""

import csv
import importlib
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from moreaugrad.penalties import L1, ElasticNet
from moreaugrad.reports.watch import Watch
from moreaugrad.training import Fast, Free, GaussianNoise, Iterative, Momentum, Penalised
from trained import (
    PENALTY,
    QUIET,
    RATE,
    by_hand,
    lightning,
    loader,
    module,
    network,
    same,
    samples,
)

pl = lightning()
# Only after Lightning, which needs torchvision's operators where it is installed.
from moreaugrad.training.lightning import SparseGradients  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*(worker|validation_step|val_dataloader|LeafSpec|tensor cores)"
)

PROTOCOLS = {
    "fast": Fast(PENALTY),
    "iterative": Iterative(ElasticNet(0.1, 0.5), steps=2),
    "momentum": Momentum(PENALTY, steps=2),
    "gaussian-noise": GaussianNoise(0.3),
}


def fit(lit: Any, callback: Any, batches: Any = None, **settings: Any) -> Any:
    trainer = pl.Trainer(**{**QUIET, "max_epochs": 2, "callbacks": [callback], **settings})
    trainer.fit(lit, loader(4) if batches is None else batches)
    return trainer


def fresh(name: str) -> Any:
    """A protocol that has seen no batch."""
    found = PROTOCOLS[name]
    return type(found)(**{
        field: getattr(found, field) for field in found.__dataclass_fields__
        if field not in ("tally", "memory")
    })  # fmt: skip


@pytest.mark.parametrize("name", PROTOCOLS)
def test_it_equals_a_loop_of_ones_own(name: str) -> None:
    """To the bit, with batch normalisation and dropout: no pass draws random numbers of its own."""
    torch.manual_seed(0)
    lit = module(network(), pl)
    fit(lit, SparseGradients(protocol=fresh(name)))
    torch.manual_seed(0)
    expected = by_hand(network(), fresh(name), loader(4))
    assert same(lit.net, expected)
    torch.manual_seed(0)
    assert not same(lit.net, by_hand(network(), GaussianNoise(0.0), loader(4)), 1e-4)


def test_a_loss_of_ones_own() -> None:
    """Of the step and of the perturbation, which depends on the weight with an elastic net."""
    loss = partial(cross_entropy, weight=torch.tensor([0.1, 1.0, 4.0]), reduction="none")
    penalty = ElasticNet(0.1, 0.5)

    def step(self: Any, batch: Any) -> Any:
        return cross_entropy(self(batch[0]), batch[1])

    lit = module(network(plain=True), pl, step)
    fit(lit, SparseGradients(penalty, loss=loss))
    expected = by_hand(network(plain=True), partial(Fast(penalty), loss=loss), loader(4))
    assert same(lit.net, expected)
    assert not same(lit.net, by_hand(network(plain=True), Fast(penalty), loader(4)), 1e-4)


def test_a_penalty_alone_means_the_fast_protocol() -> None:
    callback = SparseGradients(PENALTY, "momentum")
    assert isinstance(callback.protocol, Momentum)
    assert isinstance(SparseGradients(PENALTY).protocol, Fast)
    with pytest.raises(ValueError, match="penalty"):
        SparseGradients(PENALTY, Fast(PENALTY))


@pytest.mark.parametrize("protocol", [Free(PENALTY), Penalised(PENALTY)])
def test_protocols_that_are_more_than_a_batch_are_refused(protocol: Any) -> None:
    with pytest.raises(ValueError, match=f"{type(protocol).__name__}.*rounds"):
        SparseGradients(protocol=protocol)


def test_accumulated_batches_equal_a_large_one() -> None:
    lit = module(network(plain=True), pl)
    fit(lit, SparseGradients(PENALTY), accumulate_grad_batches=2)
    assert same(lit.net, by_hand(network(plain=True), Fast(PENALTY), loader(8)), 1e-5)


def test_mixed_precision() -> None:
    torch.manual_seed(0)
    lit = module(network(), pl)
    fit(lit, SparseGradients(PENALTY), precision="bf16-mixed")
    torch.manual_seed(0)
    assert same(lit.net, by_hand(network(), Fast(PENALTY), loader(4), amp=True))


def test_a_compiled_module() -> None:
    compiled = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph

    lit = module(network(plain=True), pl)
    fit(torch.compile(lit, backend=backend), SparseGradients(PENALTY))
    assert same(lit.net, by_hand(network(plain=True), Fast(PENALTY), loader(4)), 1e-5)
    assert compiled, "the step ran uncompiled"


def test_manual_optimisation_and_a_submodule() -> None:
    def step(self: Any, batch: Any) -> Any:
        self.optimizers().zero_grad()
        loss = cross_entropy(self.net(batch[0]), batch[1])
        self.manual_backward(loss)
        self.optimizers().step()

    lit = module(network(plain=True), pl, step)
    lit.automatic_optimization = False
    lit.forward = None  # only the submodule can be called
    fit(lit, SparseGradients(PENALTY, model="net"))
    assert same(lit.net, by_hand(network(plain=True), Fast(PENALTY), loader(4)))


@pytest.mark.parametrize("form", ["method", "function"])
def test_a_function_of_the_module(form: str) -> None:
    """Its passes for the perturbation are in evaluation mode too, and a watch can measure it."""
    lit = module(network(), pl)
    of_it = lit.forward if form == "method" else lambda x: lit.net(x)
    watch = Watch(*samples(4), protocol=Fast(PENALTY))
    torch.manual_seed(0)
    fit(lit, SparseGradients(PENALTY, model=of_it, watch=watch))
    torch.manual_seed(0)
    assert same(lit.net, by_hand(network(), Fast(PENALTY), loader(4)))


def test_forms_of_a_batch() -> None:
    x, y = samples()

    def named(self: Any, batch: Any) -> Any:
        assert set(batch) == {"image", "labels", "name"}
        return cross_entropy(self(batch["image"]), batch["labels"])

    def nested(self: Any, batch: Any) -> Any:
        (image, other), label = batch
        assert torch.equal(other, torch.zeros(4))
        return cross_entropy(self(image), label)

    rows = [{"image": a, "labels": b, "name": "a"} for a, b in zip(x, y, strict=True)]
    pairs = [((a, torch.tensor(0.0)), b) for a, b in zip(x, y, strict=True)]
    calls = []

    def picked(batch: Any) -> Any:
        calls.append(batch)
        return batch[0][0], batch[1], {"ids": range(4)}

    def taken(batch: Any) -> Any:
        return batch["image"], batch["labels"]

    expected = by_hand(network(plain=True), Fast(PENALTY), loader(4))
    for step, data, batch in ((named, rows, taken), (nested, pairs, picked)):
        lit = module(network(plain=True), pl, step)
        fit(lit, SparseGradients(PENALTY, batch=batch), loader(4, data))
        assert same(lit.net, expected)
    assert len(calls) == 8


def test_the_arguments_of_the_model_are_a_batch_too() -> None:
    x, y = samples()
    rows = [{"input": a, "labels": b} for a, b in zip(x, y, strict=True)]

    def step(self: Any, batch: Any) -> Any:
        return cross_entropy(self.net(batch["input"]), batch["labels"])

    lit = module(network(plain=True), pl, step)
    fit(lit, SparseGradients(PENALTY, model="net"), loader(4, rows))
    assert same(lit.net, by_hand(network(plain=True), Fast(PENALTY), loader(4)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch": lambda batch: (2 * batch[0], batch[1])}, "a tensor of the batch itself"),
        ({"batch": lambda batch: (batch[1], batch[1])}, "floating-point"),
        ({"batch": lambda batch: (batch[0], batch[1] + 9)}, "classes from 0 to 2"),
        ({"model": "nett"}, "nett"),
    ],
)
def test_bad_batches_are_one_clear_error(settings: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError, AttributeError), match=message):
        fit(module(network(), pl), SparseGradients(PENALTY, **settings))


def test_a_batch_of_another_form() -> None:
    with pytest.raises(ValueError, match=r"expected \(x, y, ...\).*batch="):
        fit(module(network(), pl), SparseGradients(PENALTY), loader(4, list(samples()[0])))


def test_a_layer_is_perturbed_within_the_step() -> None:
    torch.manual_seed(0)
    lit = module(network(), pl)
    fit(lit, SparseGradients(protocol=Fast(PENALTY, layer="net.0")))
    torch.manual_seed(0)
    net, protocol = network(), Fast(PENALTY, layer="0")
    optimiser = torch.optim.SGD(net.parameters(), lr=RATE)
    for _ in range(2):
        for x, y in loader(4):
            (found,) = protocol.rounds(net, x, y)
            optimiser.zero_grad()
            found.loss.mean().backward()
            optimiser.step()
    assert same(lit.net, net, 1e-5)


def test_only_training_is_perturbed_and_the_step_is_given_back() -> None:
    lit = module(network(plain=True), pl)
    own = lit.training_step.__func__
    x, y = samples()
    trainer = pl.Trainer(**QUIET, max_epochs=1, callbacks=[SparseGradients(L1(5.0))])
    trainer.fit(lit, loader(4), loader(len(x)))
    with torch.no_grad():
        assert lit.seen[-1] == pytest.approx(float(cross_entropy(lit.net(x), y)), rel=1e-5)
    assert "training_step" not in vars(lit)
    assert lit.training_step.__func__ is own

    def fails(self: Any, batch: Any) -> Any:
        raise ArithmeticError

    lit = module(network(), pl, fails)
    with pytest.raises(ArithmeticError):
        fit(lit, SparseGradients(PENALTY))
    assert "training_step" not in vars(lit)


def test_a_resumed_training_goes_on_with_its_noise(tmp_path: Any) -> None:
    def trained(epochs: int, **resumed: Any) -> Any:
        lit = module(network(plain=True), pl)
        callback = SparseGradients(protocol=GaussianNoise(0.5))
        settings = {**QUIET, "max_epochs": epochs, "callbacks": [callback]}
        trainer = pl.Trainer(**settings)
        trainer.fit(lit, loader(4), **resumed)
        return lit, trainer

    whole, _ = trained(2)
    _, trainer = trained(1)
    trainer.save_checkpoint(tmp_path / "one.ckpt")
    resumed, _ = trained(2, ckpt_path=tmp_path / "one.ckpt")
    assert same(whole.net, resumed.net)


def test_the_figures_of_a_watch_are_logged() -> None:
    seen = []

    def watch(model: nn.Module, epoch: int) -> dict[str, float]:
        seen.append(epoch)
        return {"watch/gini": epoch / 10}

    trainer = fit(module(network(), pl), SparseGradients(PENALTY, watch=watch))
    assert seen == [1, 2]
    assert float(trainer.callback_metrics["watch/gini"]) == pytest.approx(0.2)


def test_the_figures_are_in_the_file_of_a_logger(tmp_path: Path) -> None:
    """At the last step of each epoch, beside what the step logs itself."""

    def watch(model: nn.Module, epoch: int) -> dict[str, float]:
        return {"watch/gini": epoch / 10, "watch/accuracy": 1 - epoch / 10}

    def step(self: Any, batch: Any) -> Any:
        loss = cross_entropy(self(batch[0]), batch[1])
        self.log("loss", loss)
        return loss

    logger = pl.loggers.CSVLogger(tmp_path, name="", version="")
    callback = SparseGradients(PENALTY, watch=watch)
    fit(module(network(), pl, step), callback, logger=logger, log_every_n_steps=2)
    with (tmp_path / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    found = {
        name: {int(row["step"]): float(row[name]) for row in rows if row[name]}
        for name in ("epoch", "loss", "watch/gini", "watch/accuracy")
    }
    assert found["watch/gini"] == pytest.approx({3: 0.1, 7: 0.2})
    assert found["watch/accuracy"] == pytest.approx({3: 0.9, 7: 0.8})
    assert found["epoch"] == {1: 0, 3: 0, 5: 1, 7: 1}
    assert list(found["loss"]) == [1, 3, 5, 7]


def test_the_other_name_of_the_package() -> None:
    other = lightning("pytorch_lightning")
    lit = module(network(plain=True), other)
    callbacks = [SparseGradients(PENALTY)]
    other.Trainer(**QUIET, max_epochs=2, callbacks=callbacks).fit(lit, loader(4))
    assert same(lit.net, by_hand(network(plain=True), Fast(PENALTY), loader(4)))


def test_without_lightning_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "moreaugrad.training.lightning"
    kept = sys.modules[name]
    for package in ("lightning", "pytorch_lightning"):
        monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError, match=r"moreaugrad\[lightning\]"):
        importlib.import_module(name)
    assert kept.SparseGradients is SparseGradients
