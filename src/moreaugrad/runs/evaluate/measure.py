"""What a record says of a map, of an attack, and of how they compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from moreaugrad.attacks.result import AttackResult
from moreaugrad.data.choice import Chosen
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.runs.evaluate.judges import (
    BY_EXPLAINER,
    BY_MAP,
    BY_MASK,
    BY_MODEL,
    BY_PAIR,
    BY_TRUTH,
    EXPLAINED,
    TRUE_ABOVE,
    Judge,
)
from moreaugrad.runs.evaluate.prepare import PreparedEvaluate
from moreaugrad.runs.explaining import line
from moreaugrad.runs.records import Record
from moreaugrad.score.score import Score


def problem(error: Exception) -> str:
    """What a method, an attack or a metric raised for a sample, in one line.

    Raises it again where it says nothing about the sample: memory that ran out, files. Everything
    else is recorded, so that one part that breaks does not end a run of many.
    """
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        raise MemoryError("not enough memory: use a smaller --batch-size or --block") from error
    if isinstance(error, OSError):
        raise error
    expected = isinstance(error, (ValueError, TypeError, FloatingPointError, RuntimeError))
    return line(error) if expected else f"{type(error).__name__}: {line(error)}"


def number(value: float) -> float | None:
    """JSON has no NaN: null."""
    return value if math.isfinite(value) else None


def numbers(values: Tensor) -> list[float | None]:
    return [number(float(value)) for value in values.flatten().tolist()]


def map_told(explanation: Explanation, row: int) -> Record:
    """How a map came about; what has no meaning for its method is left out."""
    status = explanation.status[row]
    told = {
        "status": status.value,
        "ok": status.ok,
        "error": number(float(explanation.error[row])),
        "residual": number(float(explanation.residual[row])),
        "eta": number(float(explanation.eta[row])),
        "zeros": number(float(explanation.zeros[row])),
        "evaluations": int(explanation.evaluations[row]),
    }
    return {name: value for name, value in told.items() if value is not None}


def attack_told(result: AttackResult, row: int) -> Record:
    """How an attack ended."""
    status = result.status[row]
    return {
        "status": status.value,
        "ok": status.ok,
        **({} if status.ok else {"message": status.message, "remedy": status.remedy}),
        "feasible": bool(result.feasible[row]),
        "distance": number(float(result.distance[row])),
        "before": number(float(result.before[row])),
        "after": number(float(result.after[row])),
        "evaluations": int(result.evaluations[row]),
    }


TRUTHS = (BY_MASK, BY_TRUTH)


class Measures:
    """The metrics of a group of samples under one method."""

    def __init__(
        self, prepared: PreparedEvaluate, method: str, x: Tensor, rows: Sequence[Chosen]
    ) -> None:
        self._judges, self._space = prepared.judges, prepared.space
        self._explainer, self._x = prepared.explainers[method], x
        self._ids = [one.index for one in rows]
        asked = any(judge.kind in TRUTHS for judge in self._judges)
        self._truth = [prepared.truth(one) if asked else None for one in rows]

    def of_clean(self, clean: Explanation) -> list[Record]:
        """`metrics` of each sample's own map."""

        def measure(judge: Judge) -> Tensor:
            if judge.kind == BY_MAP:
                return judge.measure(clean.maps)
            if judge.kind in TRUTHS:
                return self._against_truth(judge, clean.maps)
            if judge.kind == BY_EXPLAINER:
                return judge.measure(self._explainer, clean, self._space, ids=self._ids)
            # The network itself, whatever noise a method adds to it.
            kind = self._explainer.score if judge.score == EXPLAINED else judge.score
            score = Score(
                self._explainer.forward_func,
                kind=kind,
                task=self._explainer.task,
                batch_size=self._explainer.batch_size,
                check=self._explainer.check,
            )
            bound = score.bind(self._x, clean.target, None, self._ids)
            return judge.measure(bound, clean.maps, self._space)

        return self._all((BY_MAP, *TRUTHS, BY_MODEL, BY_EXPLAINER), measure, len(clean))

    def of_attacked(self, clean: Explanation, attacked: Explanation) -> list[Record]:
        """`metrics` of the attacked map, alone and beside the clean one."""

        def measure(judge: Judge) -> Tensor:
            if judge.kind in TRUTHS:
                return self._against_truth(judge, attacked.maps)
            pair = (clean.maps,) if judge.kind == BY_PAIR else ()
            return judge.measure(*pair, attacked.maps)

        return self._all((BY_MAP, *TRUTHS, BY_PAIR), measure, len(clean))

    def _against_truth(self, judge: Judge, maps: Tensor | tuple[Tensor, ...]) -> Tensor:
        """NaN for a picture without a true map."""
        if not isinstance(maps, Tensor) or maps.ndim != 4:
            raise ValueError("expected maps of pictures [B, C, H, W] to compare with true maps")
        values = maps.sum(1) if judge.reduction == "sum" else maps.abs().sum(1)
        found = torch.full((len(maps),), math.nan, dtype=torch.float64)
        for row, truth in enumerate(self._truth):
            if truth is not None:
                true = truth > TRUE_ABOVE if judge.kind == BY_MASK else truth
                found[row] = judge.measure(values[row : row + 1], true[None].to(values.device))
        return found

    def _all(
        self, kinds: Iterable[str], measure: Callable[[Judge], Tensor], rows: int
    ) -> list[Record]:
        """A metric that cannot be computed is null, with the reason beside it."""
        columns: dict[str, list[float | None]] = {}
        problems: dict[str, str] = {}
        for judge in self._judges:
            if judge.kind not in kinds:
                continue
            try:
                columns[judge.label] = numbers(measure(judge))
            except Exception as error:
                columns[judge.label] = [None] * rows
                problems[judge.label] = problem(error)
        found: list[Record] = []
        for row in range(rows):
            record: Record = {"metrics": {name: values[row] for name, values in columns.items()}}
            found.append(record | ({"undefined": problems} if problems else {}))
        return found
