"""Losses of one's own, mixup and averages of weights in Lightning: equal to steps by hand."""

from collections.abc import Callable
from copy import deepcopy
from functools import partial
from types import MethodType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from moreaugrad.penalties import ElasticNet
from trained import (
    COUNT,
    PENALTY,
    QUIET,
    by_hand,
    lightning,
    loader,
    mixed,
    module,
    network,
    same,
    samples,
    signed,
)

pl = lightning()
# Only after Lightning, which needs torchvision's operators where it is installed.
from moreaugrad.training.lightning import SparseGradients  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*(worker|LeafSpec|val_dataloader)")

Loss = Callable[..., Tensor]
LOSSES: dict[str, Loss] = {
    "class weights": partial(cross_entropy, weight=torch.tensor([0.1, 1.0, 4.0])),
    "label smoothing": partial(cross_entropy, label_smoothing=0.4),
}


def fit(lit: Any, *callbacks: Any, validation: Any = None) -> None:
    trainer = pl.Trainer(**QUIET, max_epochs=2, callbacks=list(callbacks))
    trainer.fit(lit, loader(4), validation)


def step(self: Any, batch: Any, loss: Loss = cross_entropy) -> Tensor:
    return loss(self(batch[0]), batch[1])


def pushed(loss: Loss) -> Callable[[nn.Module, Tensor, Tensor], Tensor]:
    """The step of the elastic net (0.1, 0.5) to the linearised maximum."""

    def adversary(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        leaf = x.clone().requires_grad_()
        (g,) = torch.autograd.grad(loss(net(leaf), y, reduction="none").sum(), leaf)
        return x + 0.1 * g.sign() + g

    return adversary


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_the_step(name: str) -> None:
    """The step has it, and the perturbation raises it."""
    loss = LOSSES[name]
    lit = module(network(plain=True), pl, partial(step, loss=loss))
    fit(lit, SparseGradients(ElasticNet(0.1, 0.5), loss=partial(loss, reduction="none")))
    expected = by_hand(network(plain=True), pushed(loss), loader(4), loss=loss)
    assert same(lit.net, expected, 1e-5)
    for other in (
        by_hand(network(plain=True), pushed(cross_entropy), loader(4), loss=loss),
        by_hand(network(plain=True), pushed(loss), loader(4)),
    ):
        assert not same(lit.net, other, 1e-3)


def test_mixed_batches_are_perturbed() -> None:
    lit = module(network(plain=True), pl)
    lit.on_after_batch_transfer = MethodType(lambda self, batch, index: mixed(*batch), lit)
    fit(lit, SparseGradients(PENALTY))
    batches = [mixed(*batch) for batch in loader(4)]
    assert same(lit.net, by_hand(network(plain=True), signed, batches), 1e-5)


@pytest.mark.parametrize("last", [False, True])
def test_averages_of_the_weights(last: bool) -> None:
    """In any order of the callbacks; the weights that are trained, and watched, are not averages,
    though validation swaps them."""
    averaging = getattr(pl.callbacks, "EMAWeightAveraging", None)
    if averaging is None:
        pytest.skip("EMAWeightAveraging is of Lightning 2.6")
    watched, weights = [], list[dict[str, Tensor]]()

    def watch(model: nn.Module, epoch: int) -> dict[str, float]:
        watched.append(deepcopy(model))
        return {}

    callbacks = [averaging(decay=0.7), SparseGradients(PENALTY, model="net", watch=watch)]
    lit = module(network(plain=True), pl)
    fit(lit, *(callbacks if last else callbacks[::-1]), validation=loader(COUNT))

    def adversary(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        weights.append(deepcopy(net.state_dict()))
        return signed(net, x, y)

    net = by_hand(network(plain=True), adversary, loader(4))
    assert same(watched[-1], net)
    _, mean, *later = [*weights, net.state_dict()]
    for own in later:
        mean = {name: 0.7 * mean[name] + 0.3 * own[name] for name in mean}
    assert not same(lit.net, net, 1e-3)
    net.load_state_dict(mean)
    assert same(lit.net, net, 1e-5)
    x, y = samples()
    with torch.no_grad():
        assert lit.seen[-1] == pytest.approx(float(cross_entropy(net(x), y)), rel=1e-5)
