"""How many rows a network pass has: by the memory that they take, or as the user sets it."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import pytest
import torch
from torch import nn

import moreaugrad as mg
from moreaugrad.score import forward
from moreaugrad.score.forward import CPU_FULL, CPU_LARGEST, Chunks, activations
from moreaugrad.score.score import Score


def _table(width: int = 32) -> nn.Module:
    return nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, 3)).eval()


def test_a_pass_of_a_small_network_has_thousands_of_rows() -> None:
    assert Score(_table()).bind(torch.randn(2, 5)).chunks.size > 4096


def test_what_is_kept_is_measured_without_the_weights() -> None:
    network, x = _table(), torch.randn(1, 5, requires_grad=True)
    with activations(network) as sizes:
        network(x)
    assert sum(sizes) == (5 + 32) * 4, "the input and what comes out of the ReLU, in float32"


def test_what_has_no_storage_is_left_out() -> None:
    weights = torch.eye(5).to_sparse()
    x = torch.randn(5, 3, requires_grad=True)
    with activations(None) as sizes:
        out = torch.sparse.mm(weights, x).exp()
    assert sum(sizes) == out.numel() * 4


@pytest.mark.parametrize(
    ("entries", "kept", "size"),
    [
        (3 * 32 * 32, 800_000, 128),  # a small network of images
        (3 * 224 * 224, 35_000_000, 16),  # one of photos
        (3 * 224 * 224, 900_000_000, 2),  # one that keeps more than the memory has room for
        (3 * 224 * 224, 9_000_000_000, 1),
        (30, 2_000, 50_000),  # a table
        (2_500_000, 10, 1),  # the points alone fill a pass
        (30, 0, 128),  # not known
    ],
)
def test_rows_follow_the_memory(entries: int, kept: int, size: int) -> None:
    chunks = Chunks.of(None, torch.zeros(1, entries))
    chunks.fit(kept)
    assert chunks.size == size
    assert size in (1, 128) or size * kept <= (CPU_LARGEST if entries > 10_000 else CPU_FULL)


@pytest.mark.parametrize(
    ("entries", "kept", "gigabytes", "size"),
    [
        (3 * 224 * 224, 35_000_000, 80, 265),  # a small network of photos
        (3 * 224 * 224, 100_000_000, 80, 200),
        (3 * 224 * 224, 100_000_000, 8, 20),
        (3 * 224 * 224, 9_000_000_000, 8, 1),
        (3 * 32 * 32, 800_000, 80, 2048),  # a small one of small images
        (3 * 224 * 224, 0, 8, 265),  # not known
    ],
)
def test_rows_follow_the_memory_of_a_gpu(
    entries: int, kept: int, gigabytes: int, size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However much of it is free: the same run has the same passes when it is repeated."""
    device = torch.device("cuda", 1)
    memory = {device: (10**9, gigabytes * 10**9)}
    monkeypatch.setattr(torch.cuda, "mem_get_info", memory.__getitem__)
    chunks = Chunks.of(None, SimpleNamespace(device=device, shape=(1, entries)))
    chunks.fit(kept)
    assert chunks.size == size
    assert chunks.row_bytes == kept


def test_the_users_size_stays() -> None:
    chunks = Score(_table(), batch_size=7).bind(torch.randn(2, 5)).chunks
    assert chunks.size == 7
    assert chunks.row_bytes == (5 + 32) * 4


class _Recurrent(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.inner, self.seen = nn.Sequential(layer), []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(torch.backends.cudnn.enabled)
        return x


@pytest.mark.parametrize("on_gpu", [True, False])
@pytest.mark.parametrize("layer", [nn.LSTM(3, 2), nn.GRU(3, 2), nn.Linear(3, 2)])
def test_recurrent_layers_are_computed_without_cudnn(
    layer: nn.Module, on_gpu: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forward, "_on_gpu", lambda _: on_gpu)
    monkeypatch.setattr(torch.backends.cudnn, "enabled", True)
    model = _Recurrent(layer).eval()
    forward.call(model, torch.zeros(1, 3))
    assert model.seen == [not (on_gpu and isinstance(layer, nn.RNNBase))]
    assert torch.backends.cudnn.enabled


def test_the_last_thread_restores_the_users_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "enabled", True)
    inside, left = threading.Event(), threading.Event()

    def other() -> None:
        with forward.without_cudnn():
            inside.set()
            left.wait(10)

    thread = threading.Thread(target=other)
    with forward.without_cudnn():
        thread.start()
        inside.wait(10)
    assert not torch.backends.cudnn.enabled
    left.set()
    thread.join(10)
    assert torch.backends.cudnn.enabled


class _Inner(nn.Module):
    """A network whose forward takes a derivative by torch.func, which cannot be measured."""

    def __init__(self) -> None:
        super().__init__()
        self.net = _table()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        slopes = torch.func.grad(lambda u: self.net(u).square().sum())(x)
        return self.net(x) + slopes[:, :3]


def test_a_network_that_cannot_be_measured_is_explained_all_the_same() -> None:
    torch.manual_seed(0)
    network, x = _Inner().eval(), torch.randn(3, 5)
    explained = mg.SimpleGradient(network).attribute(x, target=0)
    given = x.clone().requires_grad_()
    (expected,) = torch.autograd.grad(network(given)[:, 0].sum(), given)
    torch.testing.assert_close(explained, expected)
