"""Numbers and maps of fixed samples while a network learns."""

from contextlib import nullcontext
from html import escape
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
        return self.after(self.embed(ids), attention_mask)

    def after(self, vectors: Tensor, attention_mask: Tensor) -> Tensor:
        real = attention_mask[..., None].float()
        return self.head(torch.tanh((vectors * real).sum(1) / real.sum(1)).pow(2))


@pytest.fixture
def reader() -> Masked:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Masked()


def test_a_layer_without_its_padding(reader: Masked) -> None:
    """More padding changes nothing."""
    ids = torch.arange(6).reshape(2, 3)
    short = {"ids": ids, "attention_mask": torch.ones(2, 3, dtype=torch.long)}
    long = {name: nn.functional.pad(value, (0, 4)) for name, value in short.items()}
    protocol = Fast(L1(0.1), layer="embed")
    first, second = (Watch(x, Y[:2], protocol=protocol)(reader, 1) for x in (short, long))
    assert first == pytest.approx(second, rel=1e-5)


def test_tokens_are_highlighted(tmp_path: Path, reader: Masked) -> None:
    """By the norm of the gradient of each token's vector, epoch by epoch, without padding."""
    ids, mask = torch.arange(6).reshape(2, 3), torch.tensor([[1, 1, 1], [1, 1, 0]])
    tokens = [["a", "<b>", "c"], ["d", "e", "PAD"]]
    protocol = Fast(L1(0.1), layer="embed")
    batch = {"ids": ids, "attention_mask": mask}
    watch = Watch(batch, Y[:2], protocol=protocol, folder=tmp_path, tokens=tokens)
    for epoch in (1, 2):
        with torch.no_grad():
            reader.embed.weight.mul_(epoch)
        watch(reader, epoch)
        text = (tmp_path / "index.html").read_text("utf-8")
        vectors = reader.embed(ids).detach().requires_grad_()
        (g,) = torch.autograd.grad(
            reader.after(vectors, mask).gather(1, Y[:2, None]).sum(), vectors
        )
        for row, names in enumerate(tokens):
            for at, name in enumerate(names[: int(mask[row].sum())]):
                shown = f'title="{float(g[row, at].norm()):+.4g}">{escape(name)}</span>'
                assert text.count(shown) == 1
    assert "PAD" not in text
    assert text.count('type="range"') == 2


def test_images_among_keyword_arguments_are_drawn(tmp_path: Path) -> None:
    pages = []
    for x in (X[:2], {"input": X[:2]}):
        Watch(x, Y[:2], folder=tmp_path)(network(), 1)
        pages.append((tmp_path / "index.html").read_text("utf-8"))
    assert pages[0] == pages[1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"folder": "maps"}, r"tokens.*2 lists"),
        ({"folder": "maps", "tokens": [["a", "b", "c"]]}, r"tokens.*2 lists"),
        ({"folder": "maps", "tokens": [["a"]] * 2}, r"tokens.*\(3, 4\)"),
        ({"folder": "maps", "method": "smoothgrad"}, r"method.*simple-gradient"),
        ({"protocol": None, "tokens": [["a"]] * 2}, r"tokens.*layer"),
    ],
)
def test_what_is_drawn_of_a_layer(
    settings: dict[str, Any], message: str, reader: Masked, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    batch = {"ids": torch.zeros(2, 3).long(), "attention_mask": torch.ones(2, 3).long()}
    given = {"protocol": Fast(L1(0.1), layer="embed"), **settings}
    with pytest.raises(ValueError, match=message):
        Watch(batch, Y[:2], **given)(reader, 1)


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
    # Of one second, the tenth file of a process would be read before the ninth.
    seconds = [file.name.split(".")[3] for file in (tmp_path / "events").iterdir()]
    assert len(set(seconds)) == 2


def test_long_trainings_show_some_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watching, "MOST", 4)
    monkeypatch.setattr(watching, "events", lambda *_: nullcontext())
    watch = Watch(X[:1], Y[:1], folder=tmp_path)
    for epoch in range(1, 10):
        watch(network(), epoch)
        assert len(watch.epochs) <= 4
        assert min(watch.epochs) == 1
        assert max(watch.epochs) == epoch


def test_labels_of_a_single_output_may_be_a_column() -> None:
    net = torch.nn.Linear(4, 1).eval()
    x = torch.randn(8, 4)
    y = (net(x)[:, 0] > 0).long()
    for labels in (y, y[:, None]):
        assert Watch(x, labels)(net, 1)["watch/accuracy"] == 1
