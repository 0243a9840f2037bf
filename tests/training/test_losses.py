"""One argument for class weights, label smoothing and soft targets; and averages of weights."""

from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, one_hot
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from moreaugrad import training
from moreaugrad.penalties import ElasticNet
from moreaugrad.training import Fast, Free, Penalised
from toys import network, normal

WEIGHTS = torch.tensor([0.2, 1.0, 5.0], dtype=torch.float64)
CLASSES = torch.tensor([0, 2, 1, 2])
MIXED = 0.7 * one_hot(CLASSES, 3).double() + 0.3 * one_hot(CLASSES.flip(0), 3)
LOSSES = {
    "class weights": (partial(cross_entropy, weight=WEIGHTS, reduction="none"), CLASSES),
    "label smoothing": (partial(cross_entropy, label_smoothing=0.2, reduction="none"), CLASSES),
    "mixup": (partial(cross_entropy, reduction="none"), MIXED),
    "all": (
        partial(cross_entropy, weight=WEIGHTS, label_smoothing=0.1, reduction="none"), MIXED
    ),
}  # fmt: skip


def literal(name: str, logits: Tensor) -> Tensor:
    """The loss of each sample, by its formula."""
    logs = logits.log_softmax(1)
    target = MIXED if name in ("mixup", "all") else one_hot(CLASSES, 3).double()
    smoothing = {"label smoothing": 0.2, "all": 0.1}.get(name, 0.0)
    target = (1 - smoothing) * target + smoothing / 3
    weights = WEIGHTS if name in ("class weights", "all") else torch.ones(3, dtype=torch.float64)
    return -(weights * target * logs).sum(1)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_of_ones_own(name: str) -> None:
    loss, y = LOSSES[name]
    model, x = network([5, 8, 3], nn.SiLU).requires_grad_(), normal(4, 5, seed=1)
    penalty = ElasticNet(0.05, 0.3)
    leaf = x.clone().requires_grad_()
    values = literal(name, model(leaf))
    (g,) = torch.autograd.grad(values.sum(), leaf)
    expected = x + 0.05 * g.sign() + 0.6 * g
    assert torch.allclose(Fast(penalty)(model, x, y, loss=loss), expected)
    (found,) = Fast(penalty).rounds(model, x, y, loss=loss)
    assert torch.allclose(found.loss, literal(name, model(expected)))
    (found,) = Penalised(penalty).rounds(model, x, y, loss=loss)
    assert torch.allclose(found.loss, values + penalty.value(g))
    deltas = []
    for found in Free(penalty, replays=2).rounds(model, x, y, loss=loss):
        (found.loss.sum() / WEIGHTS.sum()).backward()  # any reduction
        deltas.append(found.delta)
    assert torch.allclose(x + deltas[1], expected)


def test_averaged_weights_are_those_of_the_perturbed_training() -> None:
    model, x, y = network([5, 8, 3]).requires_grad_(), normal(4, 5, seed=1), CLASSES
    averaged = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    optimiser = torch.optim.SGD(model.parameters(), lr=0.5)
    adversary, mean = Fast(ElasticNet(0.05, 0.3)), list[Tensor]()
    for step in range(4):
        for r in adversary.rounds(model, x, y):
            optimiser.zero_grad()
            r.loss.mean().backward()
            optimiser.step()
        averaged.update_parameters(model)
        weights = [weight.detach().clone() for weight in model.parameters()]
        old = zip(mean or weights, weights, strict=True)
        mean = [0.9 * m + 0.1 * w if step else w for m, w in old]
    assert all(
        torch.allclose(a, b) for a, b in zip(averaged.module.parameters(), mean, strict=True)
    )
    assert not any(torch.allclose(a, b) for a, b in zip(mean, weights, strict=True))


@pytest.mark.parametrize("loss", [training.cross_entropy, training.hinge])
@pytest.mark.parametrize(
    ("output", "labels"),
    [((8, 1), (1,)), ((8, 3), (8, 1)), ((8, 3), (9,)), ((8, 3), ()), ((8, 3), (5,)),
     ((8, 3, 2), (8,))],
)  # fmt: skip
def test_labels_of_another_shape_are_refused(loss, output, labels) -> None:
    with pytest.raises(ValueError, match=r"labels: expected shape.*got"):
        loss(torch.zeros(output), torch.zeros(labels, dtype=torch.long))
