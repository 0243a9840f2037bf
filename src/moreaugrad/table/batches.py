"""Many rows, explained in parts that fit the memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from moreaugrad.explainers import Explainer
from moreaugrad.explainers.calling import Progress
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.score.behaviour import FAR, FAR_REDUCED
from moreaugrad.score.precision import raised
from moreaugrad.score.score import Score
from moreaugrad.settings import expect
from moreaugrad.table.method import Standardised
from moreaugrad.table.rows import CELLS, Preparation, Rows
from moreaugrad.table.units import ColumnScales


@dataclass(frozen=True, kw_only=True, eq=False)
class RowBatches:
    """Rows, and the method by which they are explained."""

    rows: Rows
    reader: Preparation
    units: ColumnScales
    network: Standardised
    explainer: Explainer
    reference: Tensor | None
    """The baseline of a method that is given it with the call, `[1, D]`."""
    kind: str
    """What the values are."""

    @property
    def first(self) -> Tensor:
        """The first row as the method takes it, `[1, D]`."""
        return self._read(slice(0, 1))[1]

    def explained(
        self, target: Any, ids: Sequence[int] | Tensor | None, report: Progress | None
    ) -> Explanation:
        """Values in place of the maps, and inputs in the model's units; on the CPU.

        target: one, or a tensor with one for each row. ids: as in `Explainer.explain`.
        """
        count, step = len(self.rows), max(1, CELLS // len(self.reader.columns))
        if ids is not None:
            expect(len(ids) == count, "ids", f"{count} numbers, one for each row", len(ids))
        found = []
        for at in range(0, count, step):
            part = slice(at, at + step)

            def progress(done: float, _: int, before: int = at) -> None:
                if report is not None:
                    report(before + done, count)

            several = isinstance(target, Tensor) and target.ndim > 0
            found.append(
                self._part(
                    part, target[part] if several else target, None if ids is None else ids[part],
                    progress,
                )
            )  # fmt: skip
        return Explanation.joined(found)

    def _part(
        self, part: slice, target: Any, ids: Sequence[int] | Tensor | None, progress: Progress
    ) -> Explanation:
        inputs, z = self._read(part)
        self._check_rounding(inputs, z)
        given: Any = {} if self.reference is None else {"baselines": self.reference}
        found = self.explainer.explain(z, target, ids=ids, progress=progress, **given)
        (maps,) = found.parts
        values = self.units.converted(maps, z, self.kind)
        return replace(found, maps=values, inputs=inputs).cpu()

    def _check_rounding(self, inputs: Tensor, z: Tensor) -> None:
        """Errors: ValueError for a model to which rows that come back from standardised columns,
        and so are rounded, are other rows."""
        if self.units.trivial:
            return
        network = self.network
        x = inputs.to(network.mean.device, network.dtype)
        # By scores, which compute in chunks, and refuse what no method could explain.
        given, rounded = (
            raised(
                Score(model, task="multilabel", check=False, batch_size=self.explainer.batch_size)
                .bind(rows, 0)
                .clean_outputs()
            )
            for model, rows in ((network.model, x), (network, z))
        )
        far = FAR if network.dtype == network.mean.dtype else FAR_REDUCED
        if bool(((given - rounded).abs() > far * given.abs().max()).any()):
            raise ValueError(
                "model: expected one whose output does not change with the rounding of "
                "standardised columns, as it does with codes that are truncated to integers: leave "
                "background= out (a method that compares takes baseline=), and columns keep their "
                "own units"
            )

    def _read(self, part: slice) -> tuple[Tensor, Tensor]:
        """The inputs of some rows in the model's units, and standardised, `[n, D]` each."""
        numbers = self.reader.numbers("frame", self.rows.select(part))
        like = self.network.mean
        inputs = torch.tensor(numbers, dtype=like.dtype)  # a copy of what is the user's
        return inputs, torch.from_numpy(self.units.standardised(numbers)).to(like)
