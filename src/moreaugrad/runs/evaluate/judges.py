"""The metrics of a plan, ready to measure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from moreaugrad.metrics import KINDS, METRICS, Metric
from moreaugrad.metrics import build as build_metric
from moreaugrad.registry import choose, is_code
from moreaugrad.runs.evaluate.plan import EvaluatePlan, Settings, plain_settings
from moreaugrad.score.readout import Readout

BY_MAP, BY_PAIR, BY_MODEL, BY_EXPLAINER = "map", "pair", "model", "explainer"
BY_MASK, BY_TRUTH = "mask", "truth"
TRUE_ABOVE = 0.7
"""Of a true map: within the mask. Synthetic cells' features are 0.9, other parts of them 0.4."""
EXPLAINED = "explained"
"""As the `score` of a metric that asks the network: that of the method."""
SCORES = {"infidelity": EXPLAINED}
"""By metric; for the others the probability, so that methods of other scores compare."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """A metric by its label. score: of the network, where it asks that. reduction: of maps over
    their channels, where a metric takes values of places."""

    label: str
    kind: str
    measure: Callable[..., Tensor]
    score: str = ""
    reduction: str = ""


def metric_told(plan: EvaluatePlan, label: str) -> dict[str, Any]:
    """A metric's settings, those spelt out that were not given."""
    given = plan.metrics[label]
    row = METRICS[name := str(given.get("metric", label))]
    # Of a metric of your own the plan says what a row says, so that a report need not load it.
    own = {key: given.get(key, getattr(row, key)) for key in Metric.columns if is_code(name)}
    kind = own.get("kind", row.kind)
    asks = {"score": SCORES.get(name, "probability")} if kind == BY_MODEL else {}
    return {"metric": name, **own, **plain_settings(row.defaults()), **asks, **given}


def make_judge(label: str, settings: Settings) -> Judge:
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
    return Judge(
        label=label, kind=kind, measure=build_metric(name, **own), score=score,
        reduction=row.reduction,
    )  # fmt: skip
