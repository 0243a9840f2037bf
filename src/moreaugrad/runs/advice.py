"""`recommend` as a function, for notebooks and scripts."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from moreaugrad.explainers import METHODS
from moreaugrad.explainers.base import Explainer
from moreaugrad.extras import required
from moreaugrad.registry import choose
from moreaugrad.reports.folder import PAGE
from moreaugrad.reports.recommended import RECOMMENDATION
from moreaugrad.runs.engine import execute
from moreaugrad.runs.maps.methods import built
from moreaugrad.runs.notebook import Data, Model, Parts, Target, parts_of, plan_with, prepared
from moreaugrad.runs.plans.maps import INPUTS
from moreaugrad.runs.plans.recommend import CANDIDATES, RecommendPlan
from moreaugrad.runs.plans.text import seconds
from moreaugrad.runs.recommend import RecommendRun
from moreaugrad.settings import Documented

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, kw_only=True, eq=False)
class Recommendation(metaclass=Documented, heading="Attributes"):
    """The results of `recommend`.

    >>> advice = mg.recommend(
    ...     model, x, ["simple-gradient", "smoothgrad"], sigmas=(0.2,), samples=2, steps=1,
    ... )
    >>> explainer = advice.build("robust", model)
    """

    chosen: Mapping[str, str]
    """The label of the recommended candidate by purpose: "sparse", "robust", "faithful", "quick",
    and with checkpoints "stable"; without a purpose that no candidate suits."""
    tied: Mapping[str, Sequence[str]]
    """Labels of the candidates that are not shown to be worse than the best for the purpose."""
    rows: Sequence[Mapping[str, Any]]
    """One for each candidate: its label, method and settings, and the mean of each criterion with
    its interval, as in `robustness`, `robustness.low`; None where there is none."""
    record: Mapping[str, Any]
    """Everything, as in `recommendation.json`."""
    failures: Sequence[str] = ()
    """Messages about what failed and was left out."""
    folder: Path | None = None
    """The folder of the run, where `out` was given."""
    page: Path | None = None
    """Its HTML page, where `out` was given."""

    def build(self, purpose: str, model: nn.Module, **settings: Any) -> Explainer:
        """The recommended method with its settings, or others for some of them. Errors: ValueError
        for an unknown purpose, and for a method that draws from `baselines=` without them."""
        label = self.chosen[choose("purpose", purpose, self.chosen)]
        row = next(row for row in self.rows if row["label"] == label)
        fixed = METHODS[row["method"]].settings
        own = {k: v for k, v in row["settings"].items() if k not in fixed}
        if own.get("baselines") == INPUTS and "baselines" not in settings:
            raise ValueError(
                f"baselines: {row['method']} compares inputs with others, in this run with its "
                "images: give a tensor of them, build(purpose, model, baselines=...)"
            )
        return built(row["method"], model, own | settings)

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a data frame. Errors: ImportError without pandas."""
        pandas = required("pandas", "pandas", "to_pandas()")

        return pandas.DataFrame([dict(row) for row in self.rows])


def recommend(
    model: Model,
    data: Data,
    methods: Parts | None = None,
    *,
    images: int | None = None,
    time: float | str = 900.0,
    target: Target = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    **plan: Any,
) -> Recommendation:
    """Measures which explanation method suits a network, as `moreaugrad recommend` does.

    methods: candidates; None: the command's own. images: how many of a data set or of files, 8 by
    default; of a tensor all. time: seconds that it may take, by an estimate, or a text such as
    "15m". The others: see `explain`.
    plan: further options of the command by name (`sigmas=(0.2,)`, `samples=16`), and other fields
    of `runs.plans.recommend.RecommendPlan`.
    """
    own = {} if methods is None else {"methods": parts_of(METHODS, methods, CANDIDATES)}
    limit = seconds("time", time) if isinstance(time, str) else time
    given = plan_with(RecommendPlan, plan, time=limit, **own)
    usual = None if isinstance(data, Tensor) or hasattr(data, "__array__") else given.data.images
    given, network, inputs = prepared(given, model, data, images or usual, target)
    run = RecommendRun(given, network=network, inputs=inputs)
    with tempfile.TemporaryDirectory() if out is None else nullcontext(str(out)) as place:
        outcome = execute(run, Path(place), overwrite=overwrite)
        if outcome.interrupted:
            raise KeyboardInterrupt
        record = json.loads((Path(place) / RECOMMENDATION).read_bytes())
    folder = None if out is None else Path(out)
    return Recommendation(
        chosen={one["purpose"]: one["chosen"] for one in record["purposes"]},
        tied={one["purpose"]: tuple(one["tied"]) for one in record["purposes"]},
        rows=[_row(one) for one in record["candidates"]], record=record,
        failures=list(map(str, outcome.failures)), folder=folder,
        page=None if folder is None else folder / PAGE,
    )  # fmt: skip


def _row(candidate: Mapping[str, Any]) -> dict[str, Any]:
    found = {name: candidate[name] for name in ("label", "method", "settings", "seconds")}
    for criterion, summary in candidate["values"].items():
        found[criterion] = summary["mean"]
        found |= {f"{criterion}.{name}": summary[name] for name in ("low", "high")}
    return found
