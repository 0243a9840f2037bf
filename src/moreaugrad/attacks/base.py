"""The base class of attacks: budget, box, class, and the maps of the attacked explainer."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from moreaugrad.attacks.objectives import Aim, Goal
from moreaugrad.attacks.problem import L2, NORMS, AttackedBatch, AttackStatus, Ball
from moreaugrad.attacks.search import SearchResult
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.calling import Progress, reporting
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.explainers.guidance import AUTO
from moreaugrad.registry import choose
from moreaugrad.score.bound_score import BoundScore
from moreaugrad.score.inputs import INPUT, UNITS, Batched, InputSpace, MaskLike
from moreaugrad.score.noise import Noise
from moreaugrad.score.score import Inputs
from moreaugrad.score.target_functions import alike
from moreaugrad.score.targets import TargetLike
from moreaugrad.settings import Documented, expect

OF_COMPUTATION = {"batch_size", "check", "seed", "samples", "tolerance", "max_evaluations"}
"""Settings of how a map is computed, not of what it is."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Attack(metaclass=Documented, checked=True):
    """Finds x' near x, of the same predicted class, with another map.

    A subclass implements `_search`. The class that must stay is the prediction at x, whatever the
    label of the data set is.
    """

    explainer: Explainer = field(kw_only=False)
    """The explainer whose maps are attacked. It also explains x', for the class explained at x."""
    epsilon: float | None = None
    """Largest distance of x' from x for each sample, in `norm` and `units`. Required, except for
    `manipulation` and `gaussian`, whose distance is unlimited without it."""
    norm: str = L2
    """Norm of the distance: "l2" or "linf"."""
    units: str = INPUT
    """Units of the distance: "input" (what the network takes) or "pixel" (before its normalisation,
    which `space` declares)."""
    space: InputSpace | None = None
    """An `InputSpace`: with it, x' also stays within valid pixels."""
    seed: int = 0
    """Random seed; random numbers are a function of it and of the samples' `ids`."""

    name: ClassVar[str]
    """The name in the registry."""
    needs_epsilon: ClassVar[bool] = True
    aim: ClassVar[str] = ""
    """The setting that, where it is None, is chosen by the clean map; empty without one."""

    def __post_init__(self) -> None:
        choose("norm", self.norm, NORMS)
        choose("units", self.units, UNITS)
        Noise(self.seed)
        if self.units != INPUT and self.space is None:
            raise ValueError("units: pixels need space=, which says how inputs are made of them")
        if self.epsilon is None:
            if self.needs_epsilon:
                raise ValueError(
                    f"epsilon: {self.name} needs a budget, the largest {self.norm} distance in "
                    f"{self.units} units; got None"
                )
        else:
            expect(0 <= self.epsilon < math.inf, "epsilon", "a finite number >= 0", self.epsilon)

    @classmethod
    def aimed_at(cls, settings: Mapping[str, Any]) -> Aim | None:
        """What an attack with these settings, defaults spelt out, makes worse; None for one that is
        aimed at nothing."""
        return Aim()

    @abstractmethod
    def _search(self, batch: AttackedBatch) -> SearchResult:
        """The perturbed inputs of a group of samples."""

    def _goal(self, clean: Tensor, bound: BoundScore) -> Goal | None:
        """The objective, fixed at the clean maps `[B, n]`; it is minimised. None without one."""
        return None

    def _label(self, bound: BoundScore) -> Tensor:
        """The class that must stay, `[B]`."""
        return bound.prediction

    @abstractmethod
    def budget(self) -> int:
        """About the largest number of evaluations of one sample, for estimates of the cost."""

    def attack(
        self,
        inputs: Inputs,
        target: TargetLike = None,
        additional_forward_args: object = None,
        *,
        ids: Sequence[int] | Tensor | None = None,
        mask: MaskLike = None,
        clean: Explanation | None = None,
        progress: Progress | bool | None = None,
    ) -> AttackResult:
        """The perturbed inputs, and the explainer's maps of both.

        inputs, target, additional_forward_args, ids, mask: as for `explain`; padding is not
        perturbed. clean: the explanation of these inputs, if it is known. progress: as for
        `explain`.
        Errors: ValueError or TypeError for bad input. The status of a sample says why its attack
        failed.
        """
        details = {} if clean is None else clean.details
        chosen = {k: v for k, v in details.items() if getattr(self.explainer, k, None) == AUTO}
        bound = self.explainer.bind(
            inputs, target, additional_forward_args, ids, mask, chosen=chosen
        )
        if bound.layer is not None:
            raise ValueError(
                "layer: expected an explainer of the inputs, which attacks change, got one of a "
                "layer's output"
            )
        if bound.mask is not None and self.aim and getattr(self, self.aim) is None:
            raise ValueError(
                f"mask: {self.name} would choose its target in the padding too; give {self.aim}="
            )
        several = isinstance(inputs, tuple)
        if clean is None:
            clean = self.explainer._explained(bound, several, None)
        elif clean.method != self.explainer.method:
            raise ValueError(
                f"clean: expected an explanation by {self.explainer.method}, got one by "
                f"{clean.method}"
            )
        elif differing := _differing(clean.settings, self.explainer.settings()):
            raise ValueError(f"clean: expected an explanation with {differing}")
        maps = _flat(clean, bound)
        batch = AttackedBatch(
            bound=bound,
            ball=Ball.around(bound, self.epsilon, self.norm, self.units, self.space),
            clean=maps,
            goal=self._goal(maps, bound),
            label=self._label(bound),
            seed=self.seed,
        )
        with reporting(progress, type(self).__name__) as report:
            found = self._found(batch, report)
        parts = bound.layout.restore(found.x)
        perturbed: Inputs = parts if several else parts[0]
        attacked = self.explainer.explain(
            perturbed,
            bound.target.given,
            additional_forward_args,
            ids=ids,
            mask=mask,
        )
        unknown = torch.full_like(found.objective[:, 0], torch.nan)
        goal, other = batch.goal, _flat(attacked, bound.moved(found.x))
        return AttackResult(
            inputs=perturbed,
            clean=clean,
            attacked=attacked,
            status=found.status,
            distance=batch.ball.distance(found.x),
            feasible=(attacked.prediction == bound.prediction)
            | (bound.readout.task == "regression"),
            before=unknown if goal is None else goal.reported(maps.double()),
            after=unknown if goal is None else goal.reported(other.double()),
            objective=found.objective,
            evaluations=found.evaluations,
            attack=self.name,
            settings=self.settings(),
        )

    def settings(self) -> dict[str, Any]:
        """All settings except the explainer, as values that a TOML file can hold."""
        found = {item.name: getattr(self, item.name) for item in fields(self)[1:]}
        return {name: _plain(value) for name, value in found.items() if value is not None}

    def __repr__(self) -> str:
        inside = "".join(f", {name}={value!r}" for name, value in self.settings().items())
        return f"{type(self).__name__}({self.explainer!r}{inside})"

    def _found(self, batch: AttackedBatch, progress: Progress | None) -> SearchResult:
        """The search, a group of samples at a time."""
        rows = torch.arange(len(batch), device=batch.label.device)
        size = int(self.explainer.full_passes * batch.bound.chunks.size) // self.explainer._draws()
        found = []
        for group in torch.split(rows, max(1, size)):
            before, count = int(group[0]), len(group)

            def report(done: float, before: int = before, count: int = count) -> None:
                if progress is not None:
                    progress(before + count * min(1.0, done), len(batch))

            part = replace(batch.select(group), report=report)
            found.append(_unmoved(part) if self.epsilon == 0 else self._search(part))
            report(1.0)
        return SearchResult.joined(found)


@dataclass(frozen=True, kw_only=True, eq=False)
class AttackResult(Batched, metaclass=Documented, heading="Attributes"):
    """Perturbed inputs of a batch, and the attacked explainer's maps before and after.

    >>> found = mg.attacks.TopKAttack(mg.SimpleGradient(model), epsilon=0.5, steps=2).attack(x)
    >>> before, after = found.before[0], found.after[0]
    """

    inputs: Tensor | tuple[Tensor, ...]
    """x', of the form of the inputs that were given; x itself where nothing better was found."""
    clean: Explanation
    """The attacked explainer's maps at x."""
    attacked: Explanation
    """Its maps at x', of the class that was explained at x."""
    status: tuple[AttackStatus, ...]
    """How the attack of each sample ended."""
    distance: Tensor
    """||x' - x|| in the norm and units of the budget, `[B]`."""
    feasible: Tensor
    """Whether x' has the prediction of x, `[B]`."""
    before: Tensor
    """The objective of `clean`, `[B]`, which the attack minimises; NaN without one."""
    after: Tensor
    """The objective of `attacked`, `[B]`; NaN without one."""
    objective: Tensor
    """The objective at the start of the best run and at each of its steps, as the search evaluated
    them, `[B, columns]`; NaN where not evaluated or not feasible."""
    evaluations: Tensor
    """Forward and input-backward passes of each sample, `[B]`; for a derivative that needs a
    solver, the mean over the samples of a group."""
    attack: str
    """Name of the attack."""
    settings: Mapping[str, Any]
    """Its settings."""

    def __len__(self) -> int:
        return len(self.status)

    def __getitem__(self, index: int) -> AttackResult:
        """The result of one sample, still with a batch dimension."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"expected a sample from 0 to {len(self) - 1}, got {index}")
        return self.select(torch.tensor([index % len(self)]))

    @property
    def ok(self) -> bool:
        """No attack failed."""
        return all(status.ok for status in self.status)

    def problems(self) -> list[str]:
        """A line for each sample whose attack failed, with the reason and a remedy."""
        return [
            f"sample {i}: {status.message}; {status.remedy}"
            for i, status in enumerate(self.status)
            if not status.ok
        ]


def _differing(known: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """The first setting by which another map was made, in words; "" where there is none."""
    for name in sorted(own.keys() & known.keys() - OF_COMPUTATION):
        values = [list(v) if isinstance(v, tuple) else v for v in (own[name], known[name])]
        if values[0] != values[1]:
            return f"{name} = {values[0]!r}, as the attacked explainer has it, got {values[1]!r}"
    return ""


def _flat(explanation: Explanation, bound: BoundScore) -> Tensor:
    """The maps, `[B, n]`. Errors: ValueError for the explanation of other inputs."""
    inputs = explanation.inputs if isinstance(explanation.inputs, tuple) else (explanation.inputs,)
    shapes = [tuple(part.shape) for part in inputs]
    same = shapes == [(len(bound), *shape) for shape in bound.layout.shapes] and torch.equal(
        bound.layout.flatten(inputs).to(bound.origin.dtype), bound.origin
    )
    same = same and alike(explanation.function, bound.target.function)
    if not same or not torch.equal(explanation.target, bound.target.classes):
        raise ValueError("clean: expected the explanation of these inputs and targets, got others")
    return bound.layout.flatten(explanation.parts).to(bound.origin.dtype)


def _unmoved(batch: AttackedBatch) -> SearchResult:
    """The result for a budget of 0."""
    count = torch.zeros_like(batch.label)
    return SearchResult(
        x=batch.ball.center,
        status=(AttackStatus.NO_BUDGET,) * len(batch),
        objective=batch.clean.new_full((len(batch), 1), torch.nan, dtype=torch.float64),
        evaluations=count,
    )


def _plain(value: object) -> object:
    if isinstance(value, Explainer):
        return {"method": value.method, **value.settings()}
    if isinstance(value, InputSpace):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, Tensor):
        return value.tolist()
    return list(value) if isinstance(value, tuple) else value
