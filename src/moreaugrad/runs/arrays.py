"""The series and volumes of a run: which ones, and what a network takes in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from moreaugrad.data.arrays import find_arrays, read_array
from moreaugrad.data.dataset import Chosen, DataSet
from moreaugrad.data.scans import Geometry, Voxels
from moreaugrad.data.source import NamedFiles
from moreaugrad.explainers.anytime import Frame
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.files.units import Record
from moreaugrad.models import ArrayInput
from moreaugrad.pictures import Picture, Style
from moreaugrad.pictures.arrays import draw_array, input_picture
from moreaugrad.pictures.html import uri
from moreaugrad.pictures.slices import FEW, heaviest, in_row
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.common import DataPlan


@dataclass(frozen=True, kw_only=True, eq=False)
class Arrays(Inputs):
    """Files of arrays, of which inputs are made as `models.ArrayInput` says.

    placed: whether only scans are read that say where their voxels are. scans: the sizes and places
    of the voxels of those that were read, by the number of the input and the network's id.
    """

    placed: bool = False
    scans: dict[tuple[int, int], tuple[Voxels, Geometry | None]] = field(default_factory=dict)

    of_arrays = True

    @staticmethod
    def _data(plan: DataPlan, network: Network) -> DataSet:
        return NamedFiles.at(find_arrays(plan.files))

    def _read(self, one: Chosen, network: Network) -> tuple[Tensor, list[str]]:
        """An input, and what was changed for it. Errors: see `UNREADABLE`; they name the file."""
        assert isinstance(self.data, NamedFiles)
        file = self.data.file(one.item)
        found, takes = read_array(file), network.model.array or ArrayInput()
        if self.placed and found.geometry is None:
            raise ValueError(
                f"{file}: expected a scan in NIfTI, or a folder of DICOM slices with PixelSpacing "
                "and places on one line, because only these say where the voxels of a map are; "
                "leave out --export nii"
            )
        try:
            made = takes.prepared(found)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
        self.scans[one.index, id(network)] = found.spacing, takes.geometry(found)
        return made

    def input(self, one: Chosen, network: Network) -> Tensor:
        """Of whatever shape the network takes. Errors: see `UNREADABLE`."""
        return self._read(one, network)[0]

    def shown(self, one: Chosen, x: Tensor, network: Network) -> tuple[Record, dict[str, bytes]]:
        changed, rate = self._read(one, network)[1], _rate(network)
        note = {"note": "; ".join(changed)} if changed else {}
        picture = input_picture(x, rate)
        about = {"input": one.item.name}
        views = {} if picture is None else {"input.png": _flat(picture).png(about)}
        return {"array": {"rate": rate}, **note}, views

    def described(
        self, one: Chosen, found: Explanation, explainer: Explainer, network: Network
    ) -> Record:
        spacing = self._voxels(one, network)[0]
        more = {"spacing": list(spacing)} if spacing else {}
        return {**super().described(one, found, explainer, network), **more}

    def geometry(self, one: Chosen, network: Network) -> Geometry | None:
        return self._voxels(one, network)[1]

    def _voxels(self, one: Chosen, network: Network) -> tuple[Voxels, Geometry | None]:
        key = one.index, id(network)
        if key not in self.scans:
            self._read(one, network)
        return self.scans[key]

    def drawn(
        self, one: Chosen, x: Tensor, found: Explanation, explainer: Explainer, network: Network,
        style: Style, about: Record,
    ) -> dict[str, bytes]:  # fmt: skip
        values = found.parts[0][0].cpu()
        z_scores = found.z_scores[0].half().cpu() if isinstance(found.z_scores, Tensor) else None
        if not bool(values.isfinite().all()):
            return {}
        views = draw_array(values, x.cpu(), style, z_scores, rate=_rate(network))
        shown = heaviest(values) if values.ndim == 4 else ()
        return {f"{name}.png": _flat(view, shown).png(about) for name, view in views.items()}

    def page(self, one: Chosen, x: Tensor, network: Network) -> bytes:
        return _page(self.shown(one, x, network)[1])

    def frames(
        self, one: Chosen, x: Tensor, network: Network, explainer: Explainer,
        target: int | str | None, meter: Callable[[int], None] | None,
    ) -> Iterator[tuple[Frame, bytes | None]]:  # fmt: skip
        for frame, _ in super().frames(one, x, network, explainer, target, meter):
            found = frame.explanation
            yield frame, _page(self.drawn(one, x[0], found, explainer, network, Style(), {}))

    def ground_truth(self, one: Chosen, network: Network) -> None:
        """None is known."""


def _page(views: Mapping[str, bytes]) -> bytes:
    """PNG files as HTML, with their names."""
    each = [
        f'<div>{name.removesuffix(".png")}</div><img src="{uri("image/png", data)}" alt="">'
        for name, data in views.items()
    ]
    return "".join(each).encode()


def _flat(picture: Picture, numbers: Sequence[int] = ()) -> Picture:
    """The picture, or some slices of it side by side, by default at equal distances."""
    if not picture.slices:
        return picture
    step = -(-len(picture.slices) // FEW)
    return in_row(picture, numbers or picture.slices[step // 2 :: step])


def _rate(network: Network) -> float | None:
    return None if network.model.array is None else network.model.array.rate
