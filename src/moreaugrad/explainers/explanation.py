"""The result of an explainer: maps, with the status, error and cost of each."""

from __future__ import annotations

import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor

from moreaugrad.explainers import archive
from moreaugrad.explainers.batch import ExplainedBatch, as_tuple, converted
from moreaugrad.explainers.summary import described
from moreaugrad.extras import required
from moreaugrad.files.foreign import parsing
from moreaugrad.files.tensors import read_tensors, write_tensors
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.completeness import COMPLETENESS_ERROR, incomplete
from moreaugrad.settings import expect
from moreaugrad.solvers.solution import Solution, Status

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from moreaugrad.pictures import Style

Index = int | slice | list[int] | list[bool] | Tensor | np.ndarray[Any, Any]
"""A sample, a slice of samples, their numbers, or a boolean mask over the samples."""
Array = np.ndarray[Any, Any]


class ConvergenceWarning(UserWarning):
    """A map did not reach its stated accuracy.

    >>> import warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore", mg.ConvergenceWarning)
    ...     found = mg.SparseMoreauGrad(model, max_evaluations=128).attribute(x)
    """


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Explanation(ExplainedBatch):
    """Signed maps of a batch, shaped like the inputs, with their status, error and cost.

    A sequence of its samples, each of them an explanation too. `print` shows it in words, and a
    notebook as images.

    >>> result = mg.SimpleGradient(model).explain(x)
    >>> found = result.maps, result.status, result.error
    """

    def __getitem__(self, index: Index) -> Self:
        """The explanation of some of the samples, with a batch dimension.

        index: a number, a slice, numbers in a list, an array or a tensor, or a boolean mask over
        the samples. Errors: IndexError for a number out of range and a mask of another length,
        TypeError for anything else.
        """
        return self.select(chosen_rows(index, len(self)))

    def __iter__(self) -> Iterator[Self]:
        """The explanation of each sample."""
        return (self[row] for row in range(len(self)))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The maps as an array, reduced precision as float32.

        Errors: TypeError for several inputs, which have one array each.
        """
        found = self.numpy()
        if isinstance(found, tuple):
            raise TypeError(
                f"expected the maps of one input, got those of {len(found)}: use .numpy(), which "
                "gives one array for each input"
            )
        return np.array(found, dtype=dtype, copy=copy)

    def numpy(self) -> Array | tuple[Array, ...]:
        """The maps as an array, or as a tuple with one for each input; reduced precision as
        float32."""
        found = (part.detach().cpu() for part in self.parts)
        arrays = tuple((p if p.dtype is torch.float64 else p.float()).numpy() for p in found)
        return arrays if isinstance(self.maps, tuple) else arrays[0]

    def to(self, *args: Any, **named: Any) -> Self:
        """On another device or in another precision, with the arguments of `torch.Tensor.to`.

        A dtype is that of the maps, inputs and z-scores; other numbers keep theirs.
        Errors: ValueError for a dtype that is not floating-point.
        """
        like = self.parts[0].new_empty(0).to(*args, **named)
        expect(like.is_floating_point(), "dtype", "a floating-point type", like.dtype)

        def moved(name: str, value: Any) -> Any:
            if isinstance(value, Tensor):
                of_entries = name in ("maps", "inputs", "z_scores")
                return value.to(*args, **named) if of_entries else value.to(like.device)
            if isinstance(value, tuple) and value and isinstance(value[0], Tensor):
                return tuple(moved(name, each) for each in value)
            if isinstance(value, Mapping):
                return {key: moved(name, each) for key, each in value.items()}
            return value

        new = {f.name: moved(f.name, getattr(self, f.name)) for f in fields(self)}
        if self.z_scores is not None:
            parts = (as_tuple(new["z_scores"]), self.parts, as_tuple(new["maps"]))
            z = tuple(converted(z, a.to(like.device), b) for z, a, b in zip(*parts, strict=True))
            new["z_scores"] = z if isinstance(self.z_scores, tuple) else z[0]
        return replace(self, **new)

    def cpu(self) -> Self:
        """On the CPU."""
        return self.to("cpu")

    def with_labels(self, labels: Sequence[str] | Mapping[int, str]) -> Self:
        """With names for the classes, for a model that carries none.

        A module carries them as `labels`, as those of `load_model` do, or as Hugging Face's
        `config.id2label`. labels: a name for each class, or names by index. Errors: ValueError for
        another number of names than classes.
        """
        if isinstance(labels, Mapping):
            return replace(self, labels=dict(labels))
        if self.probabilities is not None:
            classes = self.probabilities.shape[1]
            expect(len(labels) == classes, "labels", f"{classes} names", len(labels))
        return replace(self, labels=dict(enumerate(labels)))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write all of it to a safetensors file, either the whole file or nothing; see `load`.

        Errors: OSError of the file system, ValueError for a setting that JSON cannot hold.
        """
        write_tensors(Path(path), *archive.packed(self))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """What `save` wrote, on the CPU. No code in the file is run.

        Errors: ValueError for no file, a damaged one, and one of another kind.

        >>> result = mg.SimpleGradient(model).explain(x)
        >>> result.save("result.safetensors")
        >>> found = mg.Explanation.load("result.safetensors")
        """
        expected = "an explanation that moreaugrad saved"
        text, tensors = read_tensors(Path(path), expected)
        with parsing(str(path), expected):
            return archive.unpacked(cls, tensors, text)

    def to_pandas(self, entries: bool | int = False) -> pandas.DataFrame:
        """A data frame with a row for each sample: target, prediction, status, error, cost.

        entries: True gives a row for each entry of the maps instead, a number only so many of the
        largest magnitude of each sample and input; padding is left out. Errors: ImportError without
        pandas.
        """
        pandas = required("pandas", "pandas", "to_pandas()")

        from moreaugrad.explainers.rows import Entries, sample_rows

        if entries is False:
            return pandas.DataFrame(list(sample_rows(self)))
        frames = []
        for row in range(len(self)):
            for part in range(len(self.parts)):
                found = Entries.of(self, row, part)
                found = found if entries is True else found.largest(entries)
                frames.append(pandas.DataFrame({"sample": row, "part": part, **found.columns()}))
        return pandas.concat(frames, ignore_index=True) if frames else pandas.DataFrame()

    def explore(self, model: Any = None) -> Any:
        """The live explorer of these images, a widget for notebooks (the extra `explorer`).

        It begins with the method, settings and class of this result, and warns of settings that it
        lacks.

        model: None is the one that was explained; parts of a result, and results that were read
        from a file, do not know it. Errors: ValueError without one, for inputs that are no images,
        and for a method that it lacks; ImportError without the extra.
        """
        model = EXPLAINED.get(self) if model is None else model
        if model is None:
            raise ValueError("model: expected the explained model, which this result does not know")
        widget = required("moreaugrad.explorer.notebook", "explorer", "explore()")
        return widget.explore(self, model)

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        index: int | None = None,
        *,
        ax: Axes | None = None,
        view: str | None = None,
        part: int = 0,
        title: str | None = None,
        style: Style | None = None,
        most: int = 16,
        rate: float | None = None,
    ) -> Figure:
        """A figure of one sample's map in all views, or of several samples in one view each.

        path: where to write the figure, in the format of the suffix; a PNG contains the settings.
        index: the sample; None takes all, the first `most` of them. ax: axes to draw one view of
        one sample on. view: "overlay" (by default, over an image), "heat" (by default otherwise),
        "signed" or "masked"; inputs `[N]` are bars. Series `[C, T]` that are much longer than they
        have channels, and long ones `[T]`, are lines coloured by the map, in the views "line" (by
        default) and "signed". Of volumes `[C, D, H, W]` the slices where most of the map is are
        drawn. part: which of several inputs. rate: samples per second of a series, also of a short
        one; its time axis is then in seconds.
        Errors: ValueError for a map that is not finite, of which a figure of several samples says
        so instead; for an unknown view, and for `ax` with several samples.
        """
        from moreaugrad.explainers.figures import batch_figure, draw_sample, sample_figure
        from moreaugrad.pictures.plot import save_figure

        chosen = self if index is None else self[index]
        how: Any = {"part": part, "title": title, "style": style, "rate": rate}
        if ax is not None:
            expect(len(chosen) == 1, "ax", "one sample: choose it by index=", len(chosen))
            expect(path is None, "path", "none with ax=, whose figure is yours to save", path)
            return draw_sample(chosen, ax, view=view, **how)
        if len(chosen) == 1 and view is None:
            shown = sample_figure(chosen, **how)
        else:
            shown = batch_figure(chosen, view=view, most=most, **how)
        if path is not None:
            save_figure(shown, path, {"method": self.method, "settings": dict(self.settings)})
        return shown

    def __repr__(self) -> str:
        return described(self)

    def _repr_html_(self) -> str:
        from moreaugrad.explainers.display import rendered

        return rendered(self)


def chosen_rows(index: Any, count: int) -> Tensor:
    """The numbers of the samples that an index chooses among `count`. Errors: see its caller."""
    if isinstance(index, slice):
        return torch.tensor(range(count)[index], dtype=torch.long, device="cpu")
    several = isinstance(index, (list, np.ndarray, Tensor)) and np.ndim(index) > 0
    given = (index if isinstance(index, list) else index.tolist()) if several else [index]
    if several and given and all(isinstance(each, (bool, np.bool_)) for each in given):
        if len(given) != count:
            raise IndexError(f"expected a mask of {count} samples, got one of {len(given)}")
        given = [row for row, chosen in enumerate(given) if chosen]
    try:
        if any(isinstance(each, (bool, np.bool_)) for each in given):
            raise TypeError
        rows = [_row(operator.index(each), count) for each in given]
    except TypeError:
        raise TypeError(
            "expected the number of a sample, a slice, numbers, or a mask of the samples, got "
            f"{type(index).__name__}; choose entries of a map with result.maps"
        ) from None
    return torch.tensor(rows, dtype=torch.long, device="cpu")


def _row(number: int, count: int) -> int:
    try:
        return range(count)[number]
    except IndexError:
        raise IndexError(f"expected a sample from 0 to {count - 1}, got {number}") from None


EXPLAINED: WeakKeyDictionary[Explanation, Any] = WeakKeyDictionary()
"""The model of each explanation that an explainer has returned."""
STORED = 0.02
"""Relative error of a map in its input's dtype from which the map counts as lost."""


def reported(maps: Solution, bound: BoundScore) -> Solution:
    """The maps with what was chosen for them, with INCOMPLETE where the balanced backward pass
    does not fit the network, with NO_NOISE where the noise of a smoothed score is
    zero, and PRECISION where the input's dtype cannot represent the map; the error is then at least
    what is lost. Maps that failed, and those whose noise samples do not differ, have no z-scores.
    """
    if bound.chosen:
        details = {**maps.details, **bound.chosen}
        maps = replace(maps, details=details, evaluations=maps.evaluations + bound.spent)
    if COMPLETENESS_ERROR in bound.chosen:
        maps = maps.marked(Status.INCOMPLETE, incomplete(bound))
    silent = bound.silent()
    if bool(silent.any()):
        maps = maps.marked(Status.NO_NOISE, silent, maps.error.masked_fill(silent, torch.nan))
    lost = bound.layout.lost(maps.values)
    poor = (lost > STORED) & ~(maps.error >= lost)
    if bool(poor.any()):
        error = torch.where(poor, lost, maps.error)
        maps = maps.marked(Status.PRECISION, poor, error.masked_fill(error.isinf(), torch.nan))
    if maps.z_scores is None:
        return maps
    unknown = [status.failed or status is Status.UNVARIED for status in maps.status]
    hidden = torch.tensor(unknown, device=maps.error.device)[:, None]
    return replace(maps, z_scores=maps.z_scores.masked_fill(hidden, torch.nan))
