"""The metrics of a run, and what records say of a map, of an attack, and of how they compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from moreaugrad.attacks.base import AttackResult
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.files.units import Record
from moreaugrad.metrics import KINDS, METRICS, Metric
from moreaugrad.registry import choose, is_code
from moreaugrad.runs.plans.option import Settings
from moreaugrad.runs.records import number, numbers, problem
from moreaugrad.score.inputs import InputSpace
from moreaugrad.score.score import Score
from moreaugrad.score.targets import Readout

BY_MAP, BY_PAIR, BY_MODEL, BY_EXPLAINER = "map", "pair", "model", "explainer"
BY_MASK, BY_TRUTH = "mask", "truth"
WITH_TRUTH = (BY_MASK, BY_TRUTH)
TRUE_ABOVE = 0.7
"""Of a ground truth map: within the mask. Features of cells are 0.9, other parts of them 0.4."""
EXPLAINED = "explained"
"""As the `score` of a metric that asks the network: that of the method."""
SCORES = {"infidelity": EXPLAINED}
"""By metric; for the others the probability, so that methods of other scores compare."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunMetric:
    """A metric by its label. score: of the network, where it asks that. reduction: of maps over
    their channels, where a metric takes values of places."""

    label: str
    kind: str
    measure: Callable[..., Tensor]
    score: str = ""
    reduction: str = ""


def metric_settings(label: str, given: Settings) -> dict[str, Any]:
    """A metric's settings, those spelt out that were not given."""
    row = METRICS[name := str(given.get("metric", label))]
    # The plan describes a user's own metric as a row would, so that a report need not load it.
    own = {key: given.get(key, getattr(row, key)) for key in Metric.columns if is_code(name)}
    defaults = row.defaults()
    plain = {key: v for key, v in defaults.items() if isinstance(v, (str, int, float))}
    asks = own.get("kind", row.kind) == BY_MODEL
    score = {"score": SCORES.get(name, "probability")} if asks else {}
    return {"metric": name, **own, **plain, **score, **given}


def make_metric(label: str, settings: Settings) -> RunMetric:
    own = dict(settings)
    name = own.pop("metric")
    row = METRICS[name]
    if is_code(name):
        row = replace(row, **{key: own.pop(key) for key in Metric.columns})
    kind = choose(f"{label}, kind", row.kind, KINDS)
    score = own.pop("score") if kind == BY_MODEL else ""
    if "score" in row.defaults():
        own["score"] = None  # that of the bound score, which is made of this choice
    if score not in ("", EXPLAINED):
        Readout(kind=score, task="auto")  # refuses an unknown one
    return RunMetric(
        label=label, kind=kind, measure=METRICS.build(name, **own), score=score,
        reduction=row.reduction,
    )  # fmt: skip


def attack_record(result: AttackResult, row: int) -> Record:
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


@dataclass(frozen=True, kw_only=True, eq=False)
class Measures:
    """The metrics of images under one method. truths: their ground truth maps `[H, W]`, or None."""

    metrics: Sequence[RunMetric]
    explainer: Explainer
    space: InputSpace
    x: Tensor
    ids: Sequence[int] | None
    truths: Sequence[Tensor | None]

    def of_clean(self, clean: Explanation) -> list[Record]:
        """`metrics` of each image's own map."""

        def measure(metric: RunMetric) -> Tensor:
            if metric.kind == BY_MAP:
                return metric.measure(clean.maps)
            if metric.kind in WITH_TRUTH:
                return self._with_truth(metric, clean.maps)
            if metric.kind == BY_EXPLAINER:
                return metric.measure(self.explainer, clean, self.space, ids=self.ids)
            # The network itself, whatever noise a method adds to it.
            score = Score(
                self.explainer.forward_func,
                kind=self.explainer.score if metric.score == EXPLAINED else metric.score,
                task=self.explainer.task,
                batch_size=self.explainer.batch_size,
                check=self.explainer.check,
            )
            bound = score.bind(self.x, clean.target, None, self.ids)
            return metric.measure(bound, clean.maps, self.space)

        return self._all((BY_MAP, *WITH_TRUTH, BY_MODEL, BY_EXPLAINER), measure, len(clean))

    def of_attacked(self, clean: Explanation, attacked: Explanation) -> list[Record]:
        """`metrics` of the attacked map, alone and compared with the clean one."""

        def measure(metric: RunMetric) -> Tensor:
            if metric.kind in WITH_TRUTH:
                return self._with_truth(metric, attacked.maps)
            pair = (clean.maps,) if metric.kind == BY_PAIR else ()
            return metric.measure(*pair, attacked.maps)

        return self._all((BY_MAP, *WITH_TRUTH, BY_PAIR), measure, len(clean))

    def _with_truth(self, metric: RunMetric, maps: Tensor | tuple[Tensor, ...]) -> Tensor:
        """NaN for an image without ground truth."""
        if not isinstance(maps, Tensor) or maps.ndim != 4:
            raise ValueError("expected maps of images [B, C, H, W] to compare with ground truth")
        values = maps.sum(1) if metric.reduction == "sum" else maps.abs().sum(1)
        found = torch.full((len(maps),), math.nan, dtype=torch.float64)
        for row, truth in enumerate(self.truths):
            if truth is not None:
                true = truth > TRUE_ABOVE if metric.kind == BY_MASK else truth
                if bool(true.any()):
                    own = values[row : row + 1]
                    found[row] = metric.measure(own, true[None].to(values.device))
        return found

    def _all(
        self, kinds: Iterable[str], measure: Callable[[RunMetric], Tensor], rows: int
    ) -> list[Record]:
        """A metric that cannot be computed is null, with the reason next to it."""
        columns: dict[str, list[float | None]] = {}
        problems: dict[str, str] = {}
        for metric in self.metrics:
            if metric.kind not in kinds:
                continue
            try:
                columns[metric.label] = numbers(measure(metric))
            except Exception as error:
                columns[metric.label] = [None] * rows
                problems[metric.label] = problem(error)
        found: list[Record] = []
        for row in range(rows):
            record: Record = {"metrics": {name: values[row] for name, values in columns.items()}}
            found.append(record | ({"undefined": problems} if problems else {}))
        return found


def usual_metrics(given: Mapping[str, Settings], *, truth: bool) -> dict[str, Settings]:
    """The metrics of `explain`, with how well maps find the ground truth, where there is one."""
    return {**given, **({"auroc": {}, "average-precision": {}} if truth else {})}
