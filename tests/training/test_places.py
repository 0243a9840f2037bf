"""Perturbations at a layer, of keyword arguments, and with padding: against literal passes."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from moreaugrad.penalties import L1, ElasticNet, GroupL2, SquaredL2
from moreaugrad.score.inputs import InputSpace
from moreaugrad.training import (
    Fast,
    Free,
    GaussianNoise,
    Iterative,
    Momentum,
    NormalisedAscent,
    Penalised,
    Plain,
    ProjectedMaximiser,
)
from moreaugrad.training.places import bare


class Reader(nn.Module):
    """Token ids with a mask to three classes; every position has an influence, padding too."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.embed = nn.Sequential(nn.Embedding(20, 4), nn.Dropout(dropout))
            self.mix = nn.Conv1d(4, 5, 3, padding=1)
            self.head = nn.Linear(5, 3)

    def forward(self, ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        return self.after(self.embed(ids))

    def after(self, vectors: Tensor) -> Tensor:
        return self.head(torch.tanh(self.mix(vectors.mT)).mean(2))


Y = torch.tensor([0, 2, 1])


@pytest.fixture
def batch() -> dict[str, Tensor]:
    ids = torch.randint(20, (3, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.ones(3, 6, dtype=torch.long)
    mask[0, 4:] = mask[2, 1:] = 0
    return {"ids": ids, "attention_mask": mask}


def literal(model: Reader, batch: dict[str, Tensor], eps: float) -> Tensor:
    """eps sign(g) at real positions, g the gradient of each sample's loss by its vectors."""
    model.eval()
    vectors = model.embed(batch["ids"]).detach().requires_grad_()
    loss = cross_entropy(model.after(vectors), Y, reduction="sum")
    (g,) = torch.autograd.grad(loss, vectors)
    model.train()
    return eps * g.sign() * batch["attention_mask"][..., None]


@pytest.mark.parametrize("layer", ["embed", "embed.1"])
def test_a_layer_is_displaced_but_not_its_padding(layer: str, batch: dict[str, Tensor]) -> None:
    model = Reader(dropout=0.4).train()
    expected = literal(model, batch, 0.1)
    protocol = Fast(L1(0.1), layer=layer)
    before = torch.get_rng_state()
    found = protocol.perturb(model, batch, Y)
    assert torch.equal(torch.get_rng_state(), before), "a pass has drawn the caller's dropout"
    assert torch.allclose(found.delta, expected)
    torch.manual_seed(3)
    clean = model.embed(batch["ids"])
    for made in (
        lambda: next(iter(protocol.rounds(model, batch, Y))).loss.sum(),
        lambda: losses_within(protocol, model, batch).sum(),
    ):
        torch.manual_seed(3)
        model.zero_grad()
        loss = made()
        truth = cross_entropy(model.after(clean + expected), Y, reduction="sum")
        assert torch.allclose(loss, truth)
        loss.backward()
        # Weights before the layer still learn.
        assert float(model.embed[0].weight.grad.abs().max()) > 0
    assert not model.embed[0]._forward_hooks


def losses_within(protocol: Any, model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    with protocol.perturbed(model, batch, Y) as inputs:
        assert inputs is batch
        return cross_entropy(model(**inputs), Y, reduction="none")


LAYERED = {
    "fast": Fast(GroupL2(0.3, size="tokens"), layer="embed"),
    "iterative": Iterative(L1(0.1), steps=2, start="random", update=ProjectedMaximiser(),
                           layer="embed"),
    "ascent": Iterative(ElasticNet(0.1, 0.5), steps=2, update=NormalisedAscent(), layer="embed"),
    "momentum": Momentum(L1(0.1), steps=2, layer="embed"),
    "free": Free(L1(0.1), replays=3, layer="embed"),
    "penalised": Penalised(SquaredL2(0.1), layer="embed"),
    "noise": GaussianNoise(0.3, layer="embed"),
    "plain": Plain(layer="embed"),
}  # fmt: skip


@pytest.mark.parametrize("name", LAYERED)
def test_no_protocol_touches_padding(name: str, batch: dict[str, Tensor]) -> None:
    model, protocol = Reader(), LAYERED[name]
    real = batch["attention_mask"].bool()
    for found in protocol.rounds(model, batch, Y):
        found.loss.mean().backward()
        assert float(found.delta[~real].abs().max()) == 0
    if name != "plain":
        assert float(found.delta[real].abs().mean()) > 0


@pytest.mark.parametrize("name", ["fast", "momentum", "noise"])
def test_a_batch_equals_its_samples(name: str, batch: dict[str, Tensor]) -> None:
    model, protocol = Reader(), LAYERED[name]
    together = type(protocol)(**settings(protocol)).perturb(model, batch, Y, ids=[4, 5, 6]).delta
    for row in range(3):
        one = {key: value[row : row + 1] for key, value in batch.items()}
        again = type(protocol)(**settings(protocol))
        alone = again.perturb(model, one, Y[row : row + 1], ids=[4 + row]).delta
        assert torch.allclose(alone[0], together[row], atol=1e-6)


def settings(protocol: Any) -> dict[str, Any]:
    return {
        name: getattr(protocol, name)
        for name, field in protocol.__dataclass_fields__.items()
        if field.init
    }


def test_a_mask_of_an_input() -> None:
    x = torch.randn(3, 5, 4, generator=torch.Generator().manual_seed(0))
    model = nn.Sequential(nn.Flatten(), nn.Linear(20, 3))
    mask = torch.ones(3, 5, dtype=torch.bool)
    mask[1, 2:] = False
    found = Fast(L1(0.1))(model, x, Y, mask=mask) - x
    assert float(found[1, 2:].abs().max()) == 0
    assert float(found[mask].abs().min()) > 0.09
    with pytest.raises(ValueError, match="mask"):
        Fast(L1(0.1))(model, x, Y, mask=mask[:, :4])


class Named(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(6, 3)

    def forward(self, *, number: int, pixels: Tensor) -> Tensor:
        return self.head(pixels) * number


def test_keyword_arguments() -> None:
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    model, given = Named(), {"number": 2, "pixels": x}
    expected = Fast(L1(0.1))(lambda pixels: model(number=2, pixels=pixels), x, Y)
    with Fast(L1(0.1)).perturbed(model, given, Y) as inputs:
        assert torch.equal(inputs["pixels"], expected)
        assert inputs["number"] == 2
    assert given["pixels"] is x
    with pytest.raises(ValueError, match=r"one floating-point tensor.*layer="):
        Fast(L1(0.1)).perturb(model, {"ids": Y}, Y)
    with pytest.raises(ValueError, match="perturbed"):
        Fast(L1(0.1))(model, given, Y)


@pytest.mark.parametrize(
    ("layer", "message"),
    [("embedd", "did you mean 'embed'"), ("unused", "does not run"), ("ids", "one floating")],
)
def test_bad_layers(layer: str, message: str, batch: dict[str, Tensor]) -> None:
    model = Reader()
    model.unused, model.ids = nn.Identity(), nn.Identity()
    inner = model.forward
    model.forward = lambda ids, attention_mask: inner(model.ids(ids))
    with pytest.raises((ValueError, TypeError), match=message):
        Fast(L1(0.1), layer=layer).perturb(model, batch, Y)


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A group of this process alone."""
    distributed.init_process_group(
        "gloo", init_method=(tmp_path / "group").as_uri(), rank=0, world_size=1
    )
    yield
    distributed.destroy_process_group()


WRAPPERS = {
    "compiled": partial(torch.compile, backend="eager"),
    "ddp": partial(DistributedDataParallel, find_unused_parameters=True),
}


@pytest.mark.filterwarnings("ignore:find_unused_parameters=True was specified")
@pytest.mark.parametrize(
    "nested",
    [
        "compiled", "ddp", "compiled ddp", "ddp compiled", "compiled ddp compiled", "ddp ddp",
        "compiled ddp ddp", "ddp compiled ddp",
    ],
)  # fmt: skip
@pytest.mark.parametrize("layer", [None, "0"])
def test_wrappers_in_any_order(nested: str, layer: str | None, group: None) -> None:
    """The perturbation's passes go around every wrapper that sums gradients, and stay compiled."""
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    weights = []
    for names in ([], nested.split()[::-1]):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            net = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3))
        model: Any = net
        for name in names:
            model = WRAPPERS[name](model)
        for _ in range(2):
            (found,) = Fast(L1(0.3), layer=layer).rounds(model, x, Y)
            found.loss.mean().backward()
            torch.optim.SGD(net.parameters(), lr=0.5).step()
            net.zero_grad()
        weights.append(torch.cat([weight.detach().flatten() for weight in net.parameters()]))
    assert torch.allclose(*weights, atol=1e-6)
    inner = bare(model)
    assert getattr(inner, "_orig_mod", inner) is net
    assert (inner is not net) == nested.endswith("compiled")


def test_a_layer_has_no_pixels() -> None:
    space = InputSpace(mean=(0.5,), std=(0.2,))
    with pytest.raises(ValueError, match="layer"):
        Fast(L1(0.1), layer="embed", space=space, units="pixel")
    with pytest.raises(ValueError, match="perturbed"):
        Fast(L1(0.1), layer="0")(nn.Sequential(nn.Linear(6, 3)), torch.zeros(3, 6), Y)
