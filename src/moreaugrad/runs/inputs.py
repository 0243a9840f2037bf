"""The images of a run: which ones, and what a network takes in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from moreaugrad.data.arrays import ARRAY_SUFFIXES
from moreaugrad.data.dataset import Chosen, DataSet, Item, choose_images, known_classes
from moreaugrad.data.scans import Geometry
from moreaugrad.data.source import CELLS, NamedFiles, open_source
from moreaugrad.explainers.anytime import Frame
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.files.foreign import some
from moreaugrad.files.units import Record
from moreaugrad.pictures import Style, draw, heatmap, photo
from moreaugrad.runs.engine import Failure, NoResult
from moreaugrad.runs.names import unique_names
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.common import DataPlan
from moreaugrad.runs.plans.maps import OF_LABEL

UNREADABLE = (ValueError, OSError, MemoryError)
"""What reading an image raises."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Inputs:
    """plan: with every choice made, and a digest of names, classes and contents. x: what a
    network takes in, `[B, ...]`, where that is at hand: nothing is preprocessed then."""

    plan: DataPlan
    data: DataSet
    chosen: Sequence[Chosen]
    x: Tensor | None = None

    of_texts: ClassVar[bool] = False
    of_arrays: ClassVar[bool] = False

    @classmethod
    def open(cls, plan: DataPlan, seed: int, network: Network) -> Self:
        """Errors: ValueError where there are no images, or cells that the network cannot take, and
        for a language model."""
        if network.model.tokenizer is not None:
            raise ValueError(
                f"expected texts, because {network.model.name} is a language model: explain, "
                "compare and serve take --text, and files that end in .txt, .csv or .tsv; got "
                f"{some(plan.files, most=1) or 'none'}"
            )
        data = cls._data(plan, network)
        chosen = choose_images(
            data, plan.images, seed=seed, indices=plan.indices, labels=network.model.labels
        )
        if isinstance(data, NamedFiles):
            # The configuration names the chosen ones alone, so they have the same places there.
            chosen = [replace(one, index=place) for place, one in enumerate(chosen)]
            files = data.recordable(one.item for one in chosen)
            plan = replace(plan, files=files, images=None, indices=())
            return cls(
                plan=_with_digest(plan, data, chosen[: len(files)]), data=data, chosen=chosen
            )
        layout = plan.layout if plan.source == CELLS else data.layout
        plan = replace(plan, layout=layout, images=None if plan.indices else len(chosen))
        return cls(plan=_with_digest(plan, data, chosen), data=data, chosen=chosen)

    @classmethod
    def of(
        cls, x: Tensor, classes: Sequence[int] | None = None, names: Sequence[str] = ()
    ) -> Inputs:
        """Inputs at hand. classes: of each, where they are known. Errors: ValueError for other
        shapes."""
        if x.ndim != 4 or not len(x):
            raise ValueError(f"data: expected inputs [B, C, H, W], got the shape {list(x.shape)}")
        if classes is not None and len(classes) != len(x):
            raise ValueError(f"target: expected {len(x)} classes, got {len(classes)}")
        known: Sequence[int | None] = classes or [None] * len(x)
        names = names or [f"input {row}" for row in range(len(x))]
        items = [Item(name=name, index=at) for name, at in zip(names, known, strict=True)]
        content = x.detach().cpu().contiguous().numpy().tobytes() + repr(classes or "").encode()
        digest = hashlib.sha256(content).hexdigest()[:16]
        return cls(
            plan=DataPlan(indices=tuple(range(len(x))), digest=digest),
            data=NamedFiles(layout="tensor", items=items, paths={}),
            chosen=[Chosen(index=row, item=item) for row, item in enumerate(items)], x=x.detach(),
        )  # fmt: skip

    @staticmethod
    def _data(plan: DataPlan, network: Network) -> DataSet:
        if network.model.array is not None:
            raise ValueError(
                f"expected series or volumes, because {network.model.name} takes inputs of the "
                f"shape {list(network.model.array.shape)}: explain, compare, sweep and serve "
                f"take files that end in {', '.join(ARRAY_SUFFIXES)}"
            )
        if plan.source is None:
            if not plan.files:
                raise ValueError(
                    "images: expected image files, folders or globs, or a data set (--data); got "
                    "none"
                )
            return NamedFiles.of(plan.files)
        if plan.source != CELLS:
            return open_source(plan.source, layout=plan.layout, split=plan.split)
        shape = network.model.preprocess.input_shape
        if shape is None or shape[0] != 3 or shape[1] != shape[2]:
            raise ValueError(
                "data: expected a network of square RGB images of a fixed size for cells, got one "
                f"of {'any size' if shape is None else list(shape)}: --model builtin is one"
            )
        least = None if not plan.indices else max(plan.indices) + 1
        return open_source(
            CELLS, split=plan.split, size=shape[1], seed=plan.seed, count=least,
            min_feature_fraction=plan.min_feature_fraction,
        )  # fmt: skip

    @property
    def notes(self) -> list[str]:
        """What is not as it was given."""
        return []

    @property
    def has_truth(self) -> bool:
        return any(one.item.attention for one in self.chosen)

    def input(self, one: Chosen, network: Network) -> Tensor:
        """`[C, H, W]`. Errors: see `UNREADABLE`."""
        if self.x is None:
            return network.model.preprocess(self.data.load(one.item))
        if not self.x[one.index].isfinite().all():
            raise ValueError("expected finite values, got NaN or infinity")
        return self.x[one.index]

    def tried(self, one: Chosen, network: Network) -> Tensor:
        """An input as a batch of one. Errors: see `UNREADABLE`."""
        return network.tried(self.input(one, network))

    def module(self, network: Network) -> nn.Module:
        """What is explained of a network."""
        return network.model.module

    def settings(self, network: Network) -> dict[str, Any]:
        """Of methods that are not given others."""
        return {}

    def alike(self, one: Chosen, x: Tensor, network: Network, explainer: Explainer) -> Hashable:
        """What inputs that are explained together have in common."""
        return tuple(x.shape)

    def explain(
        self, rows: Sequence[Chosen], x: Tensor, network: Network, explainer: Explainer,
        target: Tensor | int | None, **how: Any,
    ) -> Explanation:  # fmt: skip
        """The maps of inputs that are alike, `x` a batch of them."""
        return explainer.explain(x, target, **how)

    def aimed(
        self, one: Chosen, target: int | str | None, network: Network
    ) -> tuple[Self, int | str | None]:
        """The same inputs, for `frames` of one with a target while others have theirs; and the
        target, which may be another than the prediction where none is given."""
        return self, target

    def in_python(self, target: int | str | None, network: Network) -> object:
        """A target as a call in Python has it."""
        return target

    def frames(
        self, one: Chosen, x: Tensor, network: Network, explainer: Explainer,
        target: int | str | None, meter: Callable[[int], None] | None,
    ) -> Iterator[tuple[Frame, bytes | None]]:  # fmt: skip
        """The map of an input while it is computed, `x` a batch of one, see `Explainer.frames`; of
        others than images with its views as HTML."""
        for frame in explainer.frames(x, self.target(target, network), meter=meter):
            yield frame, None

    def predictions(self, one: Chosen, x: Tensor, network: Network, task: str) -> list[Record]:
        """See `Network.predict`."""
        return network.predict(network.batch([x]), task)[0]

    def shown(self, one: Chosen, x: Tensor, network: Network) -> tuple[Record, dict[str, bytes]]:
        """What the record of an input says of its content, and files of it by their names."""
        pixels = network.model.preprocess.pixels(x).permute(2, 0, 1)
        truth = self.ground_truth(one, network)
        views = {"input": photo(pixels), "truth": None if truth is None else heatmap(truth)}
        about = {"input": one.item.name}
        return {}, {f"{name}.png": view.png(about) for name, view in views.items() if view}

    def described(
        self, one: Chosen, found: Explanation, explainer: Explainer, network: Network
    ) -> Record:
        """What the record of a map says of its target and its content."""
        target = int(found.target)
        return {"target": {"class": target, "label": network.label(target)}}

    def geometry(self, one: Chosen, network: Network) -> Geometry | None:
        """Where the voxels of a scan are, as the network sees it."""
        return None

    def drawn(
        self, one: Chosen, x: Tensor, found: Explanation, explainer: Explainer, network: Network,
        style: Style, about: Record,
    ) -> dict[str, bytes]:  # fmt: skip
        """Views of a map as files, by the ends of their names."""
        values = found.parts[0][0].cpu()
        if not bool(values.isfinite().all()) or values.ndim > 3:
            return {}
        pixels = network.model.preprocess.pixels(x)
        under = pixels if values.shape[-2:] == pixels.shape[:2] else None
        z_scores = found.z_scores[0].half().cpu() if isinstance(found.z_scores, Tensor) else None
        views = draw(values, under, style, z_scores)
        return {f"{name}.png": view.png(about) for name, view in views.items()}

    def page(self, one: Chosen, x: Tensor, network: Network) -> bytes:
        """An input in the explorer: a PNG file; HTML of others than images."""
        return self.shown(one, x, network)[1]["input.png"]

    def named(self, one: Chosen) -> dict[str, Any]:
        """What names an input on the command line: options, and "IMAGE"."""
        if self.plan.source is not None:
            return {"--data": self.plan.source, "--indices": str(one.index)}
        paths = getattr(self.data, "paths", {})
        return {"IMAGE": [str(paths.get(one.item.name, one.item.name))]}

    def ground_truth(self, one: Chosen, network: Network) -> Tensor | None:
        """The ground truth map `[H, W]` in [0, 1] as the network sees it; None where there is none
        that can be read, or it has another size than the image. Values are not mixed, so that
        steps stay steps."""
        try:
            found = self.data.load_attention(one.item)
            if found is not None and found.size != self.data.load(one.item).size:
                found = None
        except (ValueError, OSError):
            found = None
        if found is None:
            return None
        like = replace(network.model.preprocess, mean=(0.0,), std=(1.0,), interpolation="nearest")
        return like(found)[0]

    def first(self, network: Network) -> Tensor:
        """The first usable input as a batch of one. Errors: ValueError where there is none."""
        problems = []
        for one in self.chosen:
            try:
                return self.tried(one, network)
            except UNREADABLE as error:
                problems.append(str(error))
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ValueError(f"{problems[0]}{more}")

    def few(self, network: Network, most: int) -> list[Tensor]:
        """The first usable inputs, as batches of one."""
        found: list[Tensor] = []
        for one in self.chosen:
            if len(found) < most:
                with suppress(*UNREADABLE):
                    found.append(self.tried(one, network))
        return found

    def target(self, target: int | str | None, network: Network) -> int | None:
        """The class to explain, by its index; None where it is not one for all.

        Errors: ValueError with the nearest label.
        """
        return network.target(target)

    def targets(
        self, chosen: Sequence[Chosen], target: int | str | None, network: Network
    ) -> Tensor | int | None:
        """The classes to explain. Errors: ValueError for an image whose label is not known."""
        if target != OF_LABEL:
            return self.target(target, network)
        return torch.tensor(known_classes(chosen), device=network.device)

    def folders(self) -> dict[int, str]:
        """A folder for the results of each image, by its index, unlike every other's."""
        names = unique_names([PurePosixPath(one.item.name).stem for one in self.chosen])
        return {one.index: f"inputs/{n}" for one, n in zip(self.chosen, names, strict=True)}


def check_readable(unreadable: Sequence[Failure], count: int, allowed: float) -> None:
    """Errors: NoResult where more than one image, and more than an allowed fraction, cannot be
    read, or none can."""
    if len(unreadable) > max(1, allowed * count) or len(unreadable) == count:
        raise NoResult(
            f"{len(unreadable)} of {count} images cannot be read, the first is {unreadable[0]}; "
            "mend them, or allow more with --max-unreadable"
            if count > 1
            else str(unreadable[0])
        )


def _with_digest(plan: DataPlan, data: DataSet, chosen: Sequence[Chosen]) -> DataPlan:
    """The plan with a digest of names, classes and contents of the images."""
    known = [(one.index, one.item, data.digest(one.item)) for one in chosen]
    return replace(plan, digest=hashlib.sha256(repr(known).encode()).hexdigest()[:16])
