"""What a run of maps works with: network, images, methods, attacks and metrics, all tried."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from moreaugrad.data.dataset import Chosen
from moreaugrad.data.source import CELLS
from moreaugrad.files.maps import most_bytes
from moreaugrad.metrics import METRICS
from moreaugrad.pictures import Style
from moreaugrad.reports.folder import COMPARED
from moreaugrad.runs.arrays import Arrays
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.maps.aims import aimed
from moreaugrad.runs.maps.attacks import BudgetedAttack, attack_settings, attacks_on
from moreaugrad.runs.maps.exports import check_exports
from moreaugrad.runs.maps.interactions import check_interactions
from moreaugrad.runs.maps.methods import Method, check_settings, made, swept
from moreaugrad.runs.maps.metrics import (
    WITH_TRUTH,
    RunMetric,
    check_metric,
    make_metric,
    metric_settings,
)
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.explain import (
    ARRAYS,
    TEXTS,
    ComparisonPlan,
    EvaluatePlan,
    ExplainPlan,
)
from moreaugrad.runs.plans.maps import NII, OF_LABEL, method_name
from moreaugrad.runs.processes import Processes
from moreaugrad.runs.texts import Texts
from moreaugrad.score.forward import device_memory
from moreaugrad.score.score import Score
from moreaugrad.text.batches import check_method

LARGE = 2**17
"""Entries of an input of which four are computed together."""
MOST = 64
KEPT = 1000
"""Images of an evaluation up to which all maps are kept unless it is asked for."""
STATE, STATE_ROWS, STATE_INPUTS = 0.5, 4, 64
"""What a solver keeps for each image takes at most this fraction of a GPU's memory. It is about as
large as what so many rows of a pass keep for their gradients, and so many inputs."""


def block_size(first: Tensor, row_bytes: int) -> int:
    """Images that are computed together: on a CPU by the size of one alone, on a GPU as many as its
    memory has room for. A run that is resumed on a machine like the first has the same units.

    first: an input as a batch of one, of a text its token vectors. row_bytes: what a row of a pass
    keeps for its gradient, 0 where that is not known.
    """
    memory = device_memory(first.device)
    if memory is None or row_bytes == 0:
        return max(1, min(MOST, 4 * LARGE // first[0].numel()))
    each = STATE_ROWS * row_bytes + STATE_INPUTS * first.nbytes
    return max(1, min(MOST, int(STATE * memory) // each))


@dataclass(frozen=True, kw_only=True, eq=False)
class Setup:
    """plan: with every setting spelt out. attacks: by the labels of the methods."""

    plan: ExplainPlan | EvaluatePlan
    network: Network
    inputs: Inputs
    methods: Sequence[Method]
    attacks: Mapping[str, Sequence[BudgetedAttack]]
    metrics: Sequence[RunMetric]

    @property
    def explains(self) -> bool:
        """Whether there is a folder of files for each image."""
        return isinstance(self.plan, ExplainPlan)

    @cached_property
    def folders(self) -> Mapping[int, str]:
        """Those folders, by the images' indices."""
        return self.inputs.folders() if self.explains else {}

    @property
    def networks(self) -> list[Network]:
        """The network, and perhaps the one that it is compared with."""
        return list({id(n): n for n in [self.network, *(m.network for m in self.methods)]}.values())

    @property
    def blocks(self) -> list[Sequence[Chosen]]:
        """The images that are computed together."""
        chosen, size = self.inputs.chosen, self.plan.block
        assert size is not None
        return [chosen[start : start + size] for start in range(0, len(chosen), size)]

    def explained(self, method: Method, block: Sequence[Chosen]) -> list[Chosen]:
        """The images of a block that a method explains: a sweep may be of the first ones alone."""
        sweep = self.plan.sweep if isinstance(self.plan, ExplainPlan) else None
        if method.value is None or sweep is None or sweep.images is None:
            return list(block)
        first = {one.index for one in self.inputs.chosen[: sweep.images]}
        return [one for one in block if one.index in first]

    def keeps(self, one: Chosen) -> bool:
        """Whether the tensors of an image are kept, for the page or other tools."""
        return one.index in self._kept

    @cached_property
    def _kept(self) -> set[int]:
        plan = self.plan
        limit = plan.page_images if isinstance(plan, ExplainPlan) else plan.maps
        return {one.index for one in self.inputs.chosen[:limit]}

    def kept_bytes(self, x: Tensor) -> int:
        """Of inputs like this one and maps: clean ones, and attacked inputs with theirs. Sparse
        maps take this at most."""
        inputs = maps = 0
        for block in self.blocks:
            keeps = list(filter(self.keeps, block))
            inputs += len(keeps)
            for method in self.methods:
                clean = len(self.explained(method, block if self.explains else keeps))
                attacked = clean * len(self.attacks.get(method.label, ()))
                inputs, maps = inputs + attacked, maps + clean + attacked
        return inputs * x.nbytes + maps * most_bytes(x, self.plan.maps_as)

    def ids(self, rows: Sequence[Chosen]) -> list[int] | None:
        """What keys the noise of images: in an evaluation each has its own; an explanation is the
        same whatever other images are explained with it."""
        return None if self.explains else [one.index for one in rows]

    def targets(self, rows: Sequence[Chosen], method: Method) -> Tensor | int | None:
        if self.plan.target == OF_LABEL:
            return self.inputs.targets(rows, OF_LABEL, method.network)
        return method.target


def opened(plan: ExplainPlan | EvaluatePlan, network: Network) -> Inputs:
    """The inputs of a plan. Errors: ValueError for those that the network cannot take."""
    if isinstance(plan, ExplainPlan) and plan.kind == TEXTS:
        return Texts.open(plan, network)
    if isinstance(plan, ExplainPlan) and plan.kind == ARRAYS:
        found = Arrays.open(plan.data, plan.seed, network)
        return replace(found, placed=NII in plan.export)
    return Inputs.open(plan.data, plan.seed, network)


def set_up(
    plan: ExplainPlan | EvaluatePlan, network: Network, inputs: Inputs, processes: Processes
) -> Setup:
    """Errors: ValueError or TypeError for a plan that cannot be run."""
    if not plan.methods and not (isinstance(plan, ExplainPlan) and plan.sweep):
        raise ValueError("methods: expected names, separated by commas, or all; got none")
    target = None if plan.target == OF_LABEL else inputs.target(plan.target, network)
    first = inputs.first(network)
    inputs.targets(inputs.chosen, plan.target, network)
    if isinstance(plan, ExplainPlan):
        if inputs.of_texts:
            _check_of_texts(plan)
        if inputs.of_texts or inputs.of_arrays:
            _check_metrics(plan)
    if plan.methods:
        check_settings(plan.settings, plan.methods)
    methods = made(plan.methods, plan.settings, plan.seed, network, target, inputs=inputs)
    changed: dict[str, Any] = {"methods": {method.label: method.settings for method in methods}}
    attacks: Mapping[str, Sequence[BudgetedAttack]] = {}
    given = dict(plan.metrics)
    if isinstance(plan, ExplainPlan):
        given |= {"auroc": {}, "average-precision": {}} if inputs.has_truth else {}
        if plan.sweep is not None:
            changed["sweep"], more = swept(
                plan.sweep, plan.settings, plan.seed, network, target, first, inputs
            )
            methods += more
        if plan.compare is not None:
            changed["compare"], more = _compared(plan, plan.compare, network, inputs, processes)
            methods += more
        Style(**asdict(plan.style))  # refuses what cannot be
        check_exports(plan.export, inputs, methods)
        if plan.interactions is not None:
            methods = [replace(method, interactions=plan.interactions) for method in methods]
            for method in methods:
                check_interactions(method)
    else:
        if plan.maps is None and len(inputs.chosen) > KEPT:
            plan = replace(plan, maps=0)
            warnings.warn(
                f"maps are kept of up to {KEPT} images, and of {len(inputs.chosen)} where "
                "--maps N (maps=N in Python) asks for it: the records have all numbers",
                stacklevel=2,
            )
        plan = replace(plan, attacks=aimed(plan.attacks, plan.metrics))
        attacks = attacks_on(methods, plan, network, inputs.chosen, first)
        spelt_out = {label: attack_settings(plan, label) for label in plan.attacks}
        changed |= {"attacks": spelt_out, "norm": None, "units": None}
    regression = all(method.explainer.task == "regression" for method in methods)
    settings = {
        label: metric_settings(label, own, regression=regression) for label, own in given.items()
    }
    metrics = [make_metric(label, own) for label, own in settings.items()]
    needing = [metric.label for metric in metrics if metric.kind in WITH_TRUTH]
    if needing and not inputs.has_truth:
        raise ValueError(
            f"{needing[0]}: needs ground truth maps, and these data have none; --data cells has "
            "some, CUB-GHA is another"
        )
    # One of somebody's own may not take a map of zeros.
    own = [metric for metric in metrics if settings[metric.label]["metric"] not in METRICS]
    _check_values([metric for metric in metrics if metric not in own], methods, inputs)
    changed["model"] = network.resolved(plan.model)
    row_bytes, like = 0, first
    for one in {id(m.network): m for m in reversed(methods)}.values():
        with one.network.model.sized():
            bound = one.explainer.bind(inputs.first(one.network), one.target)
        row_bytes = max(row_bytes, bound.chunks.row_bytes)
        like = bound.origin if inputs.of_texts else first
    plan = replace(
        plan, data=inputs.plan, target=plan.target if target is None else target,
        compute=network.compute, settings={}, metrics=settings,
        block=plan.block or block_size(like, row_bytes), **changed,
    )  # fmt: skip
    return Setup(
        plan=plan, network=network, inputs=inputs, methods=methods, attacks=attacks,
        metrics=metrics,
    )  # fmt: skip


def _check_values(metrics: Sequence[RunMetric], methods: Sequence[Method], inputs: Inputs) -> None:
    """Errors: ValueError for a metric with which no method's maps have a value; after hours, the
    records would say so of each map."""
    problems: dict[str, str] = {}
    for method in methods if metrics else ():
        network, explainer = method.network, method.explainer
        x = inputs.first(network)
        with network.model.sized():
            bound = explainer.bind(x, method.target)
            zeros = torch.zeros_like(bound.layout.restore(bound.origin)[0])
            if explainer.layer is not None and any(m.kind == "model" for m in metrics):
                score = Score(explainer.forward_func, task=explainer.task, check=False)
                bound = score.bind(x, method.target)
        found = {m.label: check_metric(m, zeros, bound, network.space) for m in metrics}
        problems = {label: why for label, why in found.items() if why}
        if not problems:
            return
        metrics = [metric for metric in metrics if metric.label in problems]
    if problems:
        label, why = next(iter(problems.items()))
        raise ValueError(f"{label}: {why}")


def _check_of_texts(plan: ExplainPlan) -> None:
    """Errors: ValueError for what is for images alone."""
    if plan.sweep is not None:
        raise ValueError("sweep: expected images, got texts, which explain and compare take")
    for label, given in plan.methods.items():
        check_method(method_name(label, given))


def _check_metrics(plan: ExplainPlan) -> None:
    """Errors: ValueError for metrics that replace or compare parts of images."""
    for label, given in plan.metrics.items():
        if METRICS[str(given.get("metric", label))].kind != "map":
            raise ValueError(
                f"metrics: expected those of a map alone for {plan.kind}, such as gini, got {label}"
            )


def _compared(
    plan: ExplainPlan,
    compare: ComparisonPlan,
    network: Network,
    inputs: Inputs,
    processes: Processes,
) -> tuple[ComparisonPlan, list[Method]]:
    """The second network's methods. Errors: ValueError that says whose they are."""
    try:
        second = Network.load(compare.model, network.compute, processes)
        asked = plan.target if compare.target is None else compare.target
        if asked == OF_LABEL and second.model.labels != network.model.labels:
            raise ValueError(
                "target: label is for networks with the same labels in the same order: give a class"
            )
        target = None if asked == OF_LABEL else inputs.target(asked, second)
        shapes = [n.model.preprocess.input_shape for n in (network, second)]
        if plan.data.source == CELLS and shapes[0] != shapes[1]:
            raise ValueError(
                "expected a network of images of the same size, because the ground truth has it; "
                f"got {shapes[0]} and {shapes[1]}"
            )
        given = compare.methods or plan.methods
        methods = made(given, plan.settings, plan.seed, second, target, COMPARED, inputs)
    except (ValueError, TypeError) as error:
        raise ValueError(f"compare-with, {compare.model.name}: {error}") from error
    spelt_out = replace(
        compare, target=asked if target is None else target, model=second.resolved(compare.model),
        methods={m.label.removeprefix(COMPARED): m.settings for m in methods},
    )  # fmt: skip
    return spelt_out, methods
