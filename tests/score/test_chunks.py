"""How many rows a network pass has: by the memory that they take, or as the user sets it."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import moreaugrad as mg
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


def test_the_users_size_stays() -> None:
    assert Score(_table(), batch_size=7).bind(torch.randn(2, 5)).chunks.size == 7


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
