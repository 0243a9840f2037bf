"""What a network's gradients are like while it learns: numbers and maps of fixed samples."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, distributed, nn

from moreaugrad.explainers import SimpleGradient, build
from moreaugrad.metrics import gini
from moreaugrad.penalties import L1
from moreaugrad.pictures import Picture, draw, photo
from moreaugrad.reports.content import Entry, Page, Section, Sweep, Table, Tile
from moreaugrad.reports.events import EVENTS, events
from moreaugrad.reports.page import write_page
from moreaugrad.score.forward import forward
from moreaugrad.settings import Documented, expect
from moreaugrad.text.drawing import Drawn, Segment
from moreaugrad.text.explanation import NORM, legend
from moreaugrad.training import Fast, PerSampleLoss, Protocol, cross_entropy
from moreaugrad.training.adversaries import one_step
from moreaugrad.training.harmonisation import GuidedPenalty
from moreaugrad.training.places import EVAL, Inputs, Model, Place, bare, in_mode

MOST = 24
"""Epochs whose maps a page has; of more, every second one is left out."""
PAGE = "index.html"
GRADIENT, USUAL = "simple-gradient", 0.01


@dataclass(kw_only=True, eq=False)
class Watch(metaclass=Documented):
    """Numbers and maps of fixed samples while a network learns: `figures = watch(model, epoch)`.

    >>> watch = mg.Watch(x, torch.tensor([1]), protocol=mg.training.Fast(mg.L1(0.02)))
    >>> figures = watch(model, epoch=1)

    Figures: "watch/accuracy"; "watch/robust_accuracy", under one step of the protocol's penalty, or
    of `L1(0.01)` without one; "watch/gini" and "watch/gradient_norm", means of the Gini index and
    the 2-norm of the gradient of the true class's logit. They are computed in evaluation mode from
    these samples alone, and the model is left as it was. With several processes each computes them,
    and the first one writes the files.

    Errors: ValueError for a folder with a layer but without `tokens`, for another `method` than
    gradients there or of keyword arguments, and for a penalty that needs attention maps.
    """

    x: Inputs = field(kw_only=False)
    """The samples, `[B, ...]`, or the model's keyword arguments."""
    y: Tensor = field(kw_only=False)
    """Their classes, `[B]`."""
    protocol: Protocol | None = None
    """The protocol of the training: its layer, and its penalty for the one step."""
    loss: PerSampleLoss = cross_entropy
    """The loss that the one step raises, as in the training."""
    folder: str | Path | None = None
    """Where maps are drawn: `index.html`, with a slider over the epochs, and `events/` for
    TensorBoard, if it is installed. None: nowhere."""
    method: str = GRADIENT
    """The method of the maps that are drawn; at a layer and of keyword arguments, gradients."""
    tokens: Sequence[Sequence[str]] | None = None
    """With a layer `[B, L, D]`, such as the embedding of texts: the L tokens of each sample,
    padding included. They are highlighted by the norm of their vector in the map."""
    epochs: dict[int, tuple[dict[str, float], list[Tile]]] = field(
        default_factory=dict, init=False, repr=False
    )
    """Of each epoch so far that the page has: its figures and maps."""

    def __post_init__(self) -> None:
        self._layer = None if self.protocol is None else self.protocol.layer
        penalty = getattr(self.protocol, "penalty", None)
        # Refused here, not after the first epoch.
        expect(
            not isinstance(penalty, GuidedPenalty), "protocol", "one whose penalty needs no "
            f"attention maps; leave it out, and the one step is of L1({USUAL:g})", penalty,
        )  # fmt: skip
        plain = self._layer is None and isinstance(self.x, Tensor)
        expect(
            self.folder is None or self.method == GRADIENT or plain, "method",
            f"{GRADIENT!r} with a layer or keyword arguments", self.method,
        )  # fmt: skip
        wanted = self.folder is not None and self._layer is not None
        count = None if self.tokens is None else len(self.tokens)
        expect(
            count == len(self.y) if wanted else count is None or self._layer is not None, "tokens",
            f"{len(self.y)} lists, the tokens of each sample: maps at a layer are drawn as "
            "highlighted text" if wanted else "None without a layer", count,
        )  # fmt: skip

    def __call__(self, model: Model, epoch: int) -> dict[str, float]:
        """The figures after an epoch, and the maps into the folder. epoch: from 1."""
        model = cast(nn.Module, bare(model))
        like = next(model.parameters())
        x, y = _like(self.x, like), self.y.to(like.device)
        step = None if self.protocol is None else one_step(self.protocol)
        step = step or Fast(L1(USUAL), layer=self._layer)
        with in_mode(model, EVAL), torch.enable_grad():
            place = Place.of(model, x, self._layer)
            whole, start, mask = (
                (model, x, None) if place is None else (place, place.start(), place.padding)
            )
            found = SimpleGradient(whole).explain(start, y, mask=mask)
            maps, real = found.parts[0], cast(Tensor | None, found.mask)
            with step.perturbed(model, x, y, loss=self.loss) as moved:
                robust = _accuracy(model, moved, y)
            figures = {
                "watch/accuracy": _accuracy(model, x, y),
                "watch/robust_accuracy": robust,
                "watch/gini": float(gini(maps, mask=real).nanmean()),
                "watch/gradient_norm": float(maps.flatten(1).norm(dim=1).mean()),
            }
            if self.folder is not None and _first():
                if self.method != GRADIENT:
                    maps = build(self.method, model).explain(x, y).parts[0]
                tiles = self._tiles(start.cpu(), maps, real, epoch)
                self._draw(Path(self.folder), start.cpu(), tiles, figures, epoch)
        return figures

    def _tiles(self, x: Tensor, maps: Tensor, real: Tensor | None, epoch: int) -> list[Tile]:
        maps, tiles = maps.cpu(), []
        for number, (values, index) in enumerate(zip(maps, gini(maps, mask=real), strict=True)):
            views: dict[str, Picture] = {}
            text = None
            if self.tokens is not None:
                shown = None if real is None else real[number]
                text = _highlighted(values, self.tokens[number], shown)
            else:
                under = photo(x[number])
                drawn = draw(values, None if under is None else under.pixels)
                first = drawn.get("overlay", drawn["heat"])
                views = {first.view: first, "heat": drawn["heat"]}
            tiles.append(Tile(
                title=self.method, views=views, text=text, status=f"epoch {epoch}",
                gini=float(index),
            ))  # fmt: skip
        return tiles

    def _draw(
        self, folder: Path, x: Tensor, tiles: list[Tile], figures: dict[str, float], epoch: int
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.epochs[epoch] = figures, tiles
        if len(self.epochs) > MOST:
            for number in list(self.epochs)[1:-1:2]:
                del self.epochs[number]
        with events(folder / EVENTS, epoch) as writer:
            if writer is not None:
                for name, value in figures.items():
                    writer.add_scalar(name, value, epoch)
                for number, tile in enumerate(tiles):
                    for view in list(tile.views.values())[:1]:
                        writer.add_image(f"maps/{number}", view.pixels, epoch, dataformats="HWC")
        known = sorted(self.epochs)
        sections = [
            Section(
                title=f"Sample {number}, class {int(self.y[number])}",
                photo=None if self.tokens is not None else photo(x[number]),
                sweeps=[Sweep(parameter="epoch", values=known,
                              tiles=[self.epochs[each][1][number] for each in known])],
            )
            for number in range(len(x))
        ]  # fmt: skip
        rows = [
            (str(each), [Entry(text=f"{value:.3g}") for value in self.epochs[each][0].values()])
            for each in known
        ]
        columns = [name.removeprefix("watch/").replace("_", " ") for name in figures]
        table = Table(title="Figures of these samples", head="epoch", columns=columns, rows=rows)
        trained = {} if self.protocol is None else {"Protocol": repr(self.protocol)}
        write_page(folder / PAGE, Page(
            title="Maps while the network learns", sections=sections, tables=[table],
            facts={"Method": self.method, **trained},
        ))  # fmt: skip


def _highlighted(values: Tensor, tokens: Sequence[str], real: Tensor | None) -> Drawn:
    """values: of the tokens' vectors, `[L, D]`. real: which of them are no padding."""
    expect(
        values.ndim == 2 and len(tokens) == len(values), "tokens",
        f"one for each position of the layer's output, of shape {tuple(values.shape)}", len(tokens),
    )  # fmt: skip
    shown = [True] * len(tokens) if real is None else real.any(1).tolist()
    line = []
    for token, value, own in zip(tokens, values.norm(dim=1).tolist(), shown, strict=True):
        line += [Segment(token, value), Segment(" ")] if own else []
    return Drawn([line], [], legend(NORM, held=False))


def _like(x: Inputs, weight: Tensor) -> Any:
    """On the device of the weights, and of their dtype."""
    if isinstance(x, Tensor):
        return x.to(weight.device, weight.dtype if x.is_floating_point() else None)
    return {k: _like(v, weight) if isinstance(v, Tensor) else v for k, v in x.items()}


@torch.no_grad()
def _accuracy(model: nn.Module, x: Inputs, y: Tensor) -> float:
    named = x if not isinstance(x, Tensor) else {}
    output = forward(partial(model, **named), *([x] if isinstance(x, Tensor) else []))
    single = output.ndim == 1 or output.shape[1] == 1
    found = output.reshape(-1) > 0 if single else output.argmax(1)
    expect(y.numel() == found.numel(), "y", f"{found.numel()} labels", y.numel())
    return float((found == y.reshape(found.shape)).double().mean())


def _first() -> bool:
    return not distributed.is_initialized() or distributed.get_rank() == 0
