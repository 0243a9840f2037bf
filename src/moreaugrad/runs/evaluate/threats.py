"""The attacks of a plan, on each of its methods at each budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from moreaugrad.attacks import ATTACKS
from moreaugrad.attacks import build as build_attack
from moreaugrad.attacks.base import Attack
from moreaugrad.explainers import METHODS
from moreaugrad.explainers.base import Explainer
from moreaugrad.files.names import number_name
from moreaugrad.runs.evaluate.choice import Chosen, known_classes
from moreaugrad.runs.evaluate.plan import OF_DATA, EvaluatePlan, Settings, plain_settings
from moreaugrad.runs.explaining import line
from moreaugrad.runs.network import Network
from moreaugrad.runs.variants import built, told_std
from moreaugrad.score.forward import call
from moreaugrad.score.pixels import InputSpace
from moreaugrad.score.softplus import softplus_surrogate


@dataclass(frozen=True, kw_only=True, eq=False)
class Threat:
    """An attack at one budget, on one method. attack None: it does not suit the method, and why."""

    label: str
    epsilon: float | None
    attack: Attack | None
    reason: str = ""
    labelled: bool = False
    """The data set's classes are its `labels`, as in the published attack."""

    def on(self, chosen: Sequence[Chosen]) -> Attack:
        """For these samples. Errors: ValueError for a class that is not known."""
        assert self.attack is not None
        if not self.labelled:
            return self.attack
        labels: dict[str, Any] = {"labels": torch.tensor(known_classes(chosen))}
        return replace(self.attack, **labels)

    @property
    def title(self) -> str:
        return self.label if self.epsilon is None else f"{self.label} {number_name(self.epsilon)}"


def attack_told(plan: EvaluatePlan, label: str) -> dict[str, Any]:
    """An attack's settings, those spelt out that were not given."""
    given = plan.attacks[label]
    name = given.get("attack", label)
    plain = plain_settings(ATTACKS[name].defaults())
    plain.pop(given.get("over", ""), None)
    return {"attack": name, **plain, **given}


def method_told(label: str, given: Settings, network: Network) -> tuple[str, Settings]:
    """A method's name in the registry and its settings."""
    settings = dict(given)
    name = METHODS.check(settings.pop("method", label))
    return name, told_std(name, settings, network.model.preprocess)


def check_suited(threats: Mapping[str, Sequence[Threat]]) -> None:
    """Errors: ValueError for an attack that suits no method."""
    for of_methods in zip(*threats.values(), strict=True):
        if all(threat.attack is None for threat in of_methods):
            raise ValueError(f"{of_methods[0].label}: {of_methods[0].reason}")


class Threats:
    """Makes the attacks on each method; surrogate networks are made once."""

    def __init__(
        self,
        plan: EvaluatePlan,
        network: Network,
        methods: Mapping[str, tuple[str, Settings]],
        space: InputSpace,
        chosen: Sequence[Chosen],
    ) -> None:
        self._plan, self._network, self._methods, self._space = plan, network, methods, space
        self._chosen = chosen
        self._surrogates: dict[float, nn.Module] = {}

    def on(self, method: str, explainer: Explainer) -> list[Threat]:
        return [
            self._threat(label, epsilon, method, explainer)
            for label in self._plan.attacks
            for epsilon in self._plan.budgets(label)
        ]

    def try_surrogates(self, first: Tensor) -> None:
        """Errors: ValueError for a network without anything that softplus stands for."""
        for module in self._surrogates.values():
            with torch.no_grad():
                call(module, first)

    def _threat(
        self, label: str, epsilon: float | None, method: str, explainer: Explainer
    ) -> Threat:
        given = dict(self._plan.attacks[label])
        given.pop("epsilons", None)
        over = given.pop("over", "epsilon")
        name = ATTACKS.check(given.pop("attack", label))
        source, beta = given.pop("source", None), given.pop("surrogate", None)
        if source is not None or beta is not None:
            given["source"] = self._source(source or method, beta)
        labelled = given.get("labels") == OF_DATA
        if labelled:
            known_classes(self._chosen)
            del given["labels"]
        way = given.get("through")
        if isinstance(way, list):
            ways = (given.get("source") or explainer).derivatives
            given["through"] = next((w for w in way if w in ways), way[0] if way else None)
        if "space" in ATTACKS[name].defaults():
            given.setdefault("space", self._space)
        try:
            attack = build_attack(name, explainer, **{**given, over: epsilon})
        except (ValueError, TypeError) as error:
            return Threat(label=label, epsilon=epsilon, attack=None, reason=line(error))
        return Threat(label=label, epsilon=epsilon, attack=attack, labelled=labelled)

    def _source(self, source: str, beta: float | None) -> Explainer:
        """The method that the steps are computed on."""
        name, settings = self._methods.get(source) or method_told(source, {}, self._network)
        module = self._network.model.module
        if beta is not None:
            if beta not in self._surrogates:
                self._surrogates[beta] = softplus_surrogate(module, beta)
            module = self._surrogates[beta]
        return built(name, module, settings)
