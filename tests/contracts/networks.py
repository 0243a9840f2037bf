"""Small smooth networks, one for each form that a model can take, and cheap settings."""

import math
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from moreaugrad import METHODS, build
from moreaugrad.explainers.base import Explainer

CHEAP = {"steps": 8, "average": 4, "samples": 8, "draws": 2, "max_evaluations": 64}
"""Budgets for tests; a method takes those that it has."""

ONE_IMAGE = {"grad-cam"}
"""Methods that explain one input with spatial axes, and no layer: they say so."""

UNSIGNED = {"sparsified-smoothgrad", "relex"}
"""Methods whose maps are shares or masks in [0, 1]."""

SCALE_FREE = {"sparsified-smoothgrad"}
"""Methods whose maps stay when the score is multiplied."""

LOG_PROBABILITY = {"relex"}
"""Methods that explain this score only: it is a part of what they optimise."""


def default_score(name: str) -> str:
    """The score that the method explains when none is asked for."""
    return str(METHODS[name].defaults()["score"])


KEPT = {"caso", "smooth-caso", "grad-cam"}
"""Methods whose evaluations are not each a pass forward, or that look for a layer first; their own
tests count them."""


def cheap(name: str, model: object, **settings: Any) -> Explainer:
    """The method of that name at a small budget."""
    known = METHODS[name].defaults()
    budget: dict[str, Any] = {key: value for key, value in CHEAP.items() if key in known}
    if name.startswith("group") and isinstance(model, Joint):
        budget["group"] = "blocks"  # a table has no automatic groups
    return build(name, model, **(budget | settings))


def pictures(batch: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(batch)
    return torch.randn(batch, 2, 6, 6, generator=generator, dtype=torch.float64).to(dtype)


def columns(batch: int = 4, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(batch + 100)
    return torch.randn(batch, 5, generator=generator, dtype=torch.float64).to(dtype)


def _drawn(module: nn.Module, dtype: torch.dtype) -> nn.Module:
    """Weights that make maps of the order of one, the same in every test."""
    generator = torch.Generator().manual_seed(7)
    for parameter in module.parameters():
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data = (drawn / max(1, parameter[0].numel()) ** 0.5).to(dtype)
    return module.eval()


class Picture(nn.Module):
    """`[B, 2, 6, 6]` to `[B, K]`, or `[B]` where K is 0. `gain` `[B]` and `power` are optional."""

    def __init__(self, outputs: int = 3, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.squeeze = outputs == 0
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.SiLU(), nn.Conv2d(4, 3, 3))
        self.activation = nn.Tanh()
        self.norm = nn.BatchNorm2d(3)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(48, max(outputs, 1))
        _drawn(self, dtype).to(dtype)

    def forward(self, x: Tensor, gain: Tensor | None = None, power: float = 1.0) -> Tensor:
        hidden = self.drop(self.activation(self.norm(self.body(x)))).flatten(1)
        outputs = self.head(hidden) * power
        if gain is not None:
            outputs = outputs * gain[:, None]
        return outputs[:, 0] if self.squeeze else outputs


class Wrapped(nn.Module):
    """A model that returns its outputs in another form."""

    def __init__(self, model: nn.Module, form: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.model, self.form = model, form

    def forward(self, *args: Any) -> object:
        return self.form(self.model(*args))


def with_logits(dtype: torch.dtype = torch.float64) -> nn.Module:
    return Wrapped(Picture(dtype=dtype), lambda outputs: SimpleNamespace(logits=outputs)).eval()


class Segmentation(nn.Module):
    """`[B, 2, 6, 6]` to `[B, 3, 4, 4]`."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Softplus(), nn.Conv2d(4, 3, 1))
        _drawn(self, torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Joint(nn.Module):
    """A picture `[B, 2, 6, 6]` and columns `[B, 5]` to `[B, 3]`."""

    def __init__(self) -> None:
        super().__init__()
        self.picture = Picture()
        self.table = nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))
        _drawn(self.table, torch.float64)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        return self.picture(x) + self.table(table)


class Sentence(nn.Module):
    """Token ids `[B, L]` and their mask to `[B, 3]`: attention over the real positions."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 6)
        self.mix = nn.Linear(6, 6)
        self.activation = nn.Tanh()
        self.weigh = nn.Linear(6, 1)
        self.head = nn.Linear(6, 3)
        _drawn(self, torch.float64)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        return self.read(self.embedding(ids), mask)

    def read(self, embedded: Tensor, mask: Tensor) -> Tensor:
        hidden = self.activation(self.mix(embedded))
        weight = self.weigh(hidden)[:, :, 0].masked_fill(~mask, -torch.inf).softmax(1)
        return self.head((weight[:, :, None] * hidden).sum(1))


class Embedded(Sentence):
    """The same from embeddings `[B, L, 6]`."""

    def forward(self, embedded: Tensor, mask: Tensor) -> Tensor:
        return self.read(embedded, mask)


class Text(nn.Module):
    """Token ids `[B, 4]` to `[B, 3]`, by way of an embedding `[B, 4, 5]`."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 5)
        self.mix = nn.Linear(5, 5)
        self.activation = nn.Tanh()
        self.head = nn.Linear(20, 3)
        _drawn(self, torch.float64)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        hidden = self.activation(self.mix(self.embedding(ids)))
        if mask is not None:
            hidden = hidden * mask[:, :, None]
        return self.head(hidden.flatten(1))


class Rising(nn.Module):
    """`[B, 1, 4, 4]` to two outputs: the second rises with every input entry, the first falls.

    Both are 0 at a blank input, so that a mask has something to gain there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 2, 3, padding=1, bias=False)
        self.activation = nn.Softplus()
        _drawn(self, torch.float64)
        with torch.no_grad():
            self.conv.weight.abs_()

    def forward(self, x: Tensor) -> Tensor:
        total = (self.activation(self.conv(x)) - math.log(2)).flatten(1).sum(1)
        return torch.stack((-total, total), dim=1)


def parts(maps: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (maps,) if isinstance(maps, Tensor) else tuple(maps)


def assert_same(found: Any, expected: Any, tolerance: float = 1e-9) -> None:
    """Each entry within `tolerance` of the largest entry of all expected maps."""
    assert [part.shape for part in parts(found)] == [part.shape for part in parts(expected)]
    scale = max(float(part.abs().max()) for part in parts(expected))
    assert scale > 0
    for left, right in zip(parts(found), parts(expected), strict=True):
        assert float((left - right).abs().max()) <= tolerance * scale
