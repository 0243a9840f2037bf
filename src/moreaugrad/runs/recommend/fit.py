"""The evaluation that a recommendation is made of, as large as the time allows."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from moreaugrad.curvature.second_derivatives import softplus_surrogate
from moreaugrad.explainers import METHODS
from moreaugrad.explainers.moreau import Moreau
from moreaugrad.files.foreign import some
from moreaugrad.reports.comparisons import least_images
from moreaugrad.runs.cost import Cost, seconds_per_evaluation
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.maps.block import evaluations, title
from moreaugrad.runs.maps.methods import Method
from moreaugrad.runs.maps.setup import Setup
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.explain import EvaluatePlan
from moreaugrad.runs.plans.recommend import RecommendPlan
from moreaugrad.score.forward import call

KEPT, FAITHFUL, TIES = "top-k", "aopc", "top-k-ties"
EXACT, TRANSFER, SMOOTHED = "exact", "transfer", "smoothed"
BETA = 30.0
"""Of the softplus network that stands for one with kinks."""
DRAWS = 4
"""Noise samples of a map in the steps of an attack."""
SIDE, REPLACED, ORDERS = 8, 16, 2
"""Regions along a side of the image, those that AOPC replaces, and its random orders."""
FORWARD = 1 / 3
"""Of an evaluation, which goes forward and back."""
HARDER = 3.0
"""Time of an evaluation in an attack, with second derivatives and on a softplus network, over that
of one of a map, where no attack can be timed: 1.6 on a smooth vision transformer, 2.5 to 4 on
SqueezeNet."""
SOLVED = 0.5
"""Of the most evaluations of MoreauGrad's maps, those that they usually take at most."""
WITHIN = 0.9
"""Of the time, what an estimate may take: the rest is for the start, the page, and estimates that
are a little too low."""
FEWEST_METHODS = 3
KEPT_MAPS = 2
"""Images whose maps are kept, for a report with images."""


def evaluation_plan(
    plan: RecommendPlan, network: Network, inputs: Inputs, size: Size
) -> EvaluatePlan:
    """The evaluation of a size. plan: with every choice made."""
    first = inputs.first(network)
    largest = {"ratio": plan.top, "nonzero": False}
    attack: dict[str, Any] = {
        "attack": "matched", "metric": KEPT, "units": "pixel" if network.bounded else "input",
        "through": ["implicit", "straight-through", "stein"], "draws": DRAWS, "steps": size.steps,
        **({"surrogate": BETA} if has_kinks(network, first) else {}),
    }  # fmt: skip
    transfer = {**attack, "source": "simple-gradient", "measured": False, "steps": 2 * size.steps}
    # Its steps are better than MoreauGrad's own on some networks.
    smoothed = {**attack, "source": "smoothgrad", "measured": False}
    every = plan.candidates()
    return EvaluatePlan(
        data=inputs.plan, target=plan.target, seed=plan.seed, model=plan.model,
        settings=plan.settings, methods={label: every[label] for label in size.labels},
        metrics={
            KEPT: largest, TIES: largest, "zeros": {}, "gini": {},
            FAITHFUL: {
                "size": max(1, min(first.shape[-2:]) // SIDE), "steps": REPLACED, "draws": ORDERS,
            },
        },
        attacks={**({EXACT: attack} if size.exact else {}), TRANSFER: transfer, SMOOTHED: smoothed},
        epsilons=(budget(plan, network, first),),
        maps=len(inputs.chosen) if plan.checkpoints else KEPT_MAPS,
        block=plan.block, compute=plan.compute,
    )  # fmt: skip


def budget(plan: RecommendPlan, network: Network, first: Tensor) -> float:
    """The L2 norm of an attack, in pixels of [0, 1], or in the network's units where nothing says
    what a pixel is; three digits of it."""
    length = plan.rms * math.sqrt(first[0].numel())
    length /= 1.0 if network.bounded else network.model.preprocess.std[0]
    return float(f"{length:.3g}")


def has_kinks(network: Network, first: Tensor) -> bool:
    """Whether there are activations that softplus can stand for."""
    try:
        with torch.no_grad():
            call(softplus_surrogate(network.model.module, BETA), first)
    except (ValueError, TypeError):
        return False
    return True


def has_derivatives(plan: RecommendPlan) -> bool:
    """Whether an attack can follow the derivative of some candidate's map."""
    return any(METHODS[one["method"]].load().derivatives for one in plan.candidates().values())


@dataclass(frozen=True, kw_only=True)
class Size:
    """How much is measured. labels: of the candidates. exact: whether each map is attacked by its
    own derivative too, which costs most and finds least of MoreauGrad's maps."""

    images: int
    steps: int
    labels: tuple[str, ...]
    exact: bool = True


def sizes(plan: RecommendPlan, images: int) -> Iterator[Size]:
    """From all that was asked for to the least, in the order in which it is given up: noise levels
    and sparsities after the first, images down to those that intervals need, half of the attacks'
    steps, attacks by the maps' own derivatives, and methods from the last on."""
    labels, methods = tuple(plan.candidates()), len(plan.methods)
    size = Size(images=images, steps=plan.steps, labels=labels, exact=has_derivatives(plan))
    yield size
    for count in range(len(labels) - 1, methods - 1, -1):
        size = replace(size, labels=labels[:count])
        yield size
    for fewer in range(images - 1, least_images(plan.confidence) - 1, -1):
        size = replace(size, images=fewer)
        yield size
    for steps in range(plan.steps - 1, math.ceil(plan.steps / 2) - 1, -1):
        size = replace(size, steps=steps)
        yield size
    size = replace(size, exact=False)
    yield size
    for count in range(len(size.labels) - 1, FEWEST_METHODS - 1, -1):
        size = replace(size, labels=labels[:count])
        yield size


@dataclass(frozen=True, kw_only=True)
class Timing:
    """each: seconds of an evaluation of a map. attacking: of one in an attack, as its budget counts
    them."""

    each: float
    attacking: float

    @classmethod
    def of(cls, setup: Setup, first: Tensor) -> Self:
        """Measured by passes of one input, and by an attack of one step on it."""
        noisy = [m for m in setup.methods if getattr(m.explainer, "sigma", 0)]
        method = (noisy or list(setup.methods))[0]
        each = seconds_per_evaluation(method.explainer, first, None)
        known = {one.label: one.attack for one in setup.attacks[method.label]}
        attack, one_step = known[SMOOTHED], dict[str, Any](steps=1)
        try:
            if attack is None:
                raise ValueError("it suits no such map")
            short, clean = replace(attack, **one_step), method.explainer.explain(first)
            for _ in range(2):  # the first one warms up
                began = time.perf_counter()
                short.attack(first, clean.target, clean=clean)
                seconds = time.perf_counter() - began
        except (ValueError, RuntimeError):
            return cls(each=each, attacking=HARDER * each)
        return cls(each=each, attacking=seconds / (short.budget() + evaluations(method)))


def costs(plan: RecommendPlan, setup: Setup, size: Size, timing: Timing) -> list[Cost]:
    """Of the maps, the attacks and the faithfulness of a size. setup: of all candidates."""
    found = []
    for method in setup.methods:
        if method.label in size.labels:
            for name, count, spent, each in _spent(plan, setup, method, size, timing):
                found.append(Cost.of(name, count, spent, each))
    return found


def _spent(
    plan: RecommendPlan, setup: Setup, method: Method, size: Size, timing: Timing
) -> Iterator[tuple[str, int, int, float]]:
    """What is computed, for how many images, the evaluations of each, and the seconds of one."""
    part = SOLVED if isinstance(method.explainer, Moreau) else 1.0
    own = round(part * evaluations(method))
    yield method.label, size.images * (1 + len(plan.checkpoints)), own, timing.each
    passes = ORDERS * (REPLACED + 1) * FORWARD
    yield f"{method.label}, AOPC", size.images, round(passes), timing.each
    for attack in setup.attacks[method.label]:
        found = attack.attack
        if found is not None and (size.exact or attack.label != EXACT):
            steps = size.steps * (2 if attack.label == TRANSFER else 1)
            shorter: dict[str, Any] = {"steps": steps}
            spent = replace(found, **shorter).budget()
            steps_part = part if attack.label == EXACT else 1.0
            taken = round(steps_part * spent) + own
            yield title(method, attack), size.images, taken, timing.attacking


def fitting(plan: RecommendPlan, setup: Setup, timing: Timing) -> tuple[Size, list[Cost]]:
    """The first size whose estimate fits into the plan's time, or the least; with its costs."""
    for size in sizes(plan, len(setup.inputs.chosen)):
        found = costs(plan, setup, size, timing)
        if sum(cost.seconds for cost in found) <= WITHIN * plan.time:
            break
    return size, found


def left_out(plan: RecommendPlan, images: int, size: Size) -> list[str]:
    """What was asked for and is not measured, in words."""
    every = plan.candidates()
    lost = [label for label in every if label not in size.labels]
    found = [f"{len(lost)} of {len(every)} candidates ({some(lost, ', ')})"] if lost else []
    if size.images < images:
        found.append(f"{images - size.images} of {images} images")
    if size.steps < plan.steps:
        found.append(f"{plan.steps - size.steps} of {plan.steps} steps of the attacks")
    if has_derivatives(plan) and not size.exact:
        found.append(
            "attacks by the maps' own derivatives, without which maps of other methods than "
            "SmoothGrad may look more robust than they are"
        )
    return found


def fewer(inputs: Inputs, count: int, seed: int, network: Network) -> Inputs:
    """The inputs of a run of so many images."""
    if count >= len(inputs.chosen):
        return inputs
    if inputs.x is not None:
        known = [one.item.index for one in inputs.chosen[:count]]
        return Inputs.of(inputs.x[:count], [i for i in known if i is not None] or None)
    plan = replace(inputs.plan, indices=inputs.plan.indices[:count])
    if not plan.indices:
        plan = replace(plan, images=count)
    return Inputs.open(plan, seed, network)
