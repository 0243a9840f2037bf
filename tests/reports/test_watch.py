"""Numbers and maps of fixed samples while a network learns."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from moreaugrad import Watch
from moreaugrad.metrics import gini
from moreaugrad.penalties import L1
from moreaugrad.reports import watch as watching
from moreaugrad.training import Fast, GaussianNoise, Harmonisation
from trained import network, samples

X, Y = (part[:6] for part in samples())


def literal(model: nn.Module, eps: float) -> dict[str, float]:
    model.eval()
    leaf = X.clone().requires_grad_()
    (maps,) = torch.autograd.grad(model(leaf).gather(1, Y[:, None]).sum(), leaf)
    (g,) = torch.autograd.grad(cross_entropy(model(leaf), Y, reduction="sum"), leaf)
    return {
        "watch/accuracy": accuracy(model, X),
        "watch/robust_accuracy": accuracy(model, X + eps * g.sign()),
        "watch/gini": float(gini(maps).mean()),
        "watch/gradient_norm": float(maps.flatten(1).norm(dim=1).mean()),
    }


@torch.no_grad()
def accuracy(model: nn.Module, x: Tensor) -> float:
    return float((model(x).argmax(1) == Y).double().mean())


@pytest.mark.parametrize(
    ("protocol", "eps"), [(Fast(L1(0.4)), 0.4), (None, 0.01), (GaussianNoise(0.1), 0.01)]
)
def test_the_figures(protocol: Any, eps: float) -> None:
    model = network()
    with torch.no_grad():
        model[5].weight.mul_(6)
    expected = literal(model, eps)
    if eps == 0.4:
        assert expected["watch/robust_accuracy"] < expected["watch/accuracy"]
    watch = Watch(X, Y, protocol=protocol)
    assert watch(model, 1) == pytest.approx(expected, rel=1e-5)
    wrapped = {"input": X}
    assert Watch(wrapped, Y, protocol=protocol)(model, 1) == pytest.approx(expected, rel=1e-5)


def test_a_penalty_that_needs_attention_is_refused_before_the_training() -> None:
    with pytest.raises(ValueError, match=r"attention.*leave it out.*Harmonisation"):
        Watch(X, Y, protocol=Fast(Harmonisation(0.1)))


def test_the_model_is_left_as_found(untouched_generators: Any) -> None:
    model = network().train()
    model[1].eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    with untouched_generators(), torch.no_grad():
        Watch(X, Y, protocol=Fast(L1(0.4)))(model, 1)
    assert [part.training for part in model].count(False) == 1
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is None for weight in model.parameters())


class Masked(nn.Module):
    """Embedding, then the mean of the real positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 4), nn.Linear(4, 3)

    def forward(self, ids: Tensor, attention_mask: Tensor) -> Tensor:
        real = attention_mask[..., None].float()
        return self.head(torch.tanh((self.embed(ids) * real).sum(1) / real.sum(1)))


def test_a_layer_without_its_padding() -> None:
    """More padding changes nothing, and maps of a layer are not drawn."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Masked()
    ids = torch.arange(6).reshape(2, 3)
    short = {"ids": ids, "attention_mask": torch.ones(2, 3, dtype=torch.long)}
    long = {name: nn.functional.pad(value, (0, 4)) for name, value in short.items()}
    protocol = Fast(L1(0.1), layer="embed")
    first, second = (Watch(x, Y[:2], protocol=protocol)(model, 1) for x in (short, long))
    assert first == pytest.approx(second, rel=1e-5)
    with pytest.raises(ValueError, match="folder"):
        Watch(short, Y[:2], protocol=protocol, folder="maps")


def test_the_page_has_a_slider_over_the_epochs(tmp_path: Path) -> None:
    watch = Watch(X[:2], Y[:2], folder=tmp_path / "maps", method="smoothgrad")
    model = network()
    for epoch in (1, 2, 3):
        watch(model, epoch)
    text = (tmp_path / "maps" / "index.html").read_text("utf-8")
    assert text.count('type="range"') == 2
    assert text.count('data-setting="epoch = 3"') == 2
    assert "smoothgrad" in text
    assert f"Sample 1, class {int(Y[1])}" in text


def test_tensorboard_has_figures_and_maps(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    watch = Watch(X[:2], Y[:2], folder=tmp_path)
    figures = [watch(network(), epoch) for epoch in (1, 2)]
    events = EventAccumulator(str(tmp_path / "events"))
    events.Reload()
    gini_of = [one.value for one in events.Scalars("watch/gini")]
    assert gini_of == pytest.approx([one["watch/gini"] for one in figures], rel=1e-5)
    assert [one.step for one in events.Images("maps/1")] == [1, 2]


def test_long_trainings_show_some_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MOST", 4)
    watch = Watch(X[:1], Y[:1], folder=tmp_path)
    for epoch in range(1, 10):
        watch(network(), epoch)
        assert len(watch.epochs) <= 4
        assert min(watch.epochs) == 1
        assert max(watch.epochs) == epoch
