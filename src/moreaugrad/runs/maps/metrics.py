"""The metrics of a run, and what records say of a map, of an attack, and of how they compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from moreaugrad.attacks.base import AttackResult
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.files.units import Record
from moreaugrad.metrics import KINDS, METRICS, Metric
from moreaugrad.metrics.maps import REDUCTIONS, reduced
from moreaugrad.registry import choose
from moreaugrad.runs.directory import line, number, numbers, problem
from moreaugrad.runs.plans.text import Settings
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import InputSpace
from moreaugrad.score.score import Score
from moreaugrad.score.targets import Readout

WITH_TRUTH = ("mask", "truth")
"""Kinds of metrics that compare a map with ground truth."""
TRUE_ABOVE = 0.7
"""Of a ground truth map: within the mask. Features of cells are 0.9, other parts of them 0.4."""
EXPLAINED = "explained"
"""As the `score` of a metric that asks the network: that of the method."""
SCORES = {"infidelity": EXPLAINED}
"""By metric; for the others the probability, so that methods of other scores compare, or the
output of a regression, which has none."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RunMetric:
    """A metric by its label. score: of the network, where it asks that. reduction: of maps over
    their channels, where a metric takes values of places."""

    label: str
    kind: str
    measure: Callable[..., Tensor]
    score: str = ""
    reduction: str = ""


def metric_settings(label: str, given: Settings, *, regression: bool = False) -> dict[str, Any]:
    """A metric's settings, those spelt out that were not given. regression: whether all methods
    explain one."""
    row = METRICS[name := str(given.get("metric", label))]
    # The plan describes a user's own metric as a row would, so that a report need not load it.
    own = {key: given.get(key, getattr(row, key)) for key in Metric.columns if name not in METRICS}
    plain = {key: v for key, v in row.defaults().items() if isinstance(v, (str, int, float))}
    asks = own.get("kind", row.kind) == "model"
    usual = SCORES.get(name, "logit" if regression else "probability")
    score = {"score": usual} if asks else {}
    return {"metric": name, **own, **plain, **score, **given}


def make_metric(label: str, settings: Settings) -> RunMetric:
    """Errors: ValueError or TypeError for settings that it cannot have."""
    own = dict(settings)
    name = own.pop("metric")
    row = METRICS[name]
    if name not in METRICS:
        row = replace(row, **{key: own[key] for key in Metric.columns})
        # A setting of the function of that name, such as `reduction`, is one of both.
        own = {k: v for k, v in own.items() if k not in Metric.columns or k in row.defaults()}
    kind = choose(f"{label}, kind", row.kind, KINDS)
    if kind in WITH_TRUTH:
        choose(f"{label}, reduction", row.reduction, REDUCTIONS[1:])
    score = own.pop("score") if kind == "model" else ""
    if "score" in row.defaults():
        own["score"] = None  # that of the bound score, which is made of this choice
    if score not in ("", EXPLAINED):
        Readout(kind=score, task="auto")  # refuses an unknown one
    measure = METRICS.build(name, **own)
    return RunMetric(label=label, kind=kind, measure=measure, score=score, reduction=row.reduction)


def check_metric(metric: RunMetric, zeros: Tensor, bound: BoundScore, space: InputSpace) -> str:
    """Why no map has a value, by the metric's settings; empty where maps have one. It is tried with
    maps of zeros, which need no passes. bound: at the network's input, where maps may be of a
    layer."""
    try:
        if metric.kind == "model":
            metric.measure(bound, zeros, space)
        elif metric.kind in WITH_TRUTH:
            values = reduced(zeros, metric.reduction)
            metric.measure(values, torch.ones_like(values))
        elif metric.kind != "explainer":  # whose settings are checked where it is made
            metric.measure(*[zeros] * (1 + (metric.kind == "pair")))
    except (ValueError, TypeError) as error:
        return line(error)
    return ""


def attack_record(result: AttackResult, row: int) -> Record:
    """How an attack ended."""
    status = result.status[row]
    return {
        "status": status.value,
        "ok": status.ok,
        **({} if status.ok else {"message": status.message, "remedy": status.remedy}),
        "feasible": bool(result.feasible[row]),
        **{n: number(float(getattr(result, n)[row])) for n in ("distance", "before", "after")},
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
            if metric.kind == "explainer":
                return metric.measure(self.explainer, clean, self.space, ids=self.ids)
            if metric.kind != "model":
                return self._of_map(metric, clean.maps)
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

        return self._all(("map", *WITH_TRUTH, "model", "explainer"), measure)

    def of_attacked(self, clean: Explanation, attacked: Explanation) -> list[Record]:
        """`metrics` of the attacked map, alone and compared with the clean one."""

        def measure(metric: RunMetric) -> Tensor:
            if metric.kind == "pair":
                return metric.measure(clean.maps, attacked.maps)
            return self._of_map(metric, attacked.maps)

        return self._all(("map", *WITH_TRUTH, "pair"), measure)

    def _of_map(self, metric: RunMetric, maps: Tensor | tuple[Tensor, ...]) -> Tensor:
        """Of a map alone, or compared with ground truth: NaN for an image that has none."""
        if metric.kind not in WITH_TRUTH:
            return metric.measure(maps)
        if not isinstance(maps, Tensor) or maps.ndim != 4:
            raise ValueError("expected maps of images [B, C, H, W] to compare with ground truth")
        values = reduced(maps, metric.reduction)
        found = torch.full((len(maps),), math.nan, dtype=torch.float64)
        for row, truth in enumerate(self.truths):
            if truth is not None:
                true = truth > TRUE_ABOVE if metric.kind == "mask" else truth
                if bool(true.any()):
                    own = values[row : row + 1]
                    found[row] = metric.measure(own, true[None].to(values.device))
        return found

    def _all(self, kinds: Iterable[str], measure: Callable[[RunMetric], Tensor]) -> list[Record]:
        """A metric that cannot be computed is null, with the reason next to it."""
        columns: dict[str, list[float | None]] = {}
        problems: dict[str, str] = {}
        for metric in self.metrics:
            if metric.kind in kinds:
                try:
                    columns[metric.label] = numbers(measure(metric).flatten())
                except Exception as error:
                    columns[metric.label] = [None] * len(self.x)
                    problems[metric.label] = problem(error)
        undefined = {"undefined": problems} if problems else {}
        return [
            {"metrics": {name: values[row] for name, values in columns.items()}, **undefined}
            for row in range(len(self.x))
        ]
