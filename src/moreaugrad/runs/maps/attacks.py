"""The attacks of a run, on each of its methods at each budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from moreaugrad.attacks import ATTACKS
from moreaugrad.attacks.base import Attack
from moreaugrad.curvature.second_derivatives import softplus_surrogate
from moreaugrad.data.dataset import Chosen, known_classes
from moreaugrad.explainers.base import Explainer
from moreaugrad.files.names import number_name
from moreaugrad.runs.maps.methods import Method, built, spelt_out
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.explain import OF_DATA, EvaluatePlan
from moreaugrad.runs.plans.option import Settings
from moreaugrad.runs.records import line
from moreaugrad.score.forward import call


@dataclass(frozen=True, kw_only=True, eq=False)
class BudgetedAttack:
    """An attack at one budget, on one method. attack None: it does not suit the method, and why.

    labelled: the data set's classes are its `labels`, as in the published attack.
    """

    label: str
    epsilon: float | None
    attack: Attack | None
    reason: str = ""
    labelled: bool = False

    def on(self, chosen: Sequence[Chosen]) -> Attack:
        """For these images. Errors: ValueError for a class that is not known."""
        assert self.attack is not None
        if not self.labelled:
            return self.attack
        labels: dict[str, Any] = {"labels": torch.tensor(known_classes(chosen))}
        return replace(self.attack, **labels)

    @property
    def title(self) -> str:
        return self.label if self.epsilon is None else f"{self.label} {number_name(self.epsilon)}"


def attack_settings(plan: EvaluatePlan, label: str) -> dict[str, Any]:
    """An attack's settings, those spelt out that were not given."""
    given = plan.attacks[label]
    name = ATTACKS.check(str(given.get("attack", label)))
    defaults = ATTACKS[name].defaults()
    plain = {key: v for key, v in defaults.items() if isinstance(v, (str, int, float))}
    common = {"norm": plan.norm, "units": plan.units, "seed": plan.seed}
    plain |= {key: v for key, v in common.items() if key in defaults and v is not None}
    plain.pop(given.get("over", ""), None)
    return {"attack": name, **plain, **given}


def check_suited(attacks: Mapping[str, Sequence[BudgetedAttack]]) -> None:
    """Errors: ValueError for an attack that suits no method."""
    for of_methods in zip(*attacks.values(), strict=True):
        if all(one.attack is None for one in of_methods):
            raise ValueError(f"{of_methods[0].label}: {of_methods[0].reason}")


class AttackMaker:
    """Makes the attacks on each method; surrogate networks are made once."""

    def __init__(
        self, plan: EvaluatePlan, network: Network, methods: Sequence[Method],
        chosen: Sequence[Chosen],
    ) -> None:  # fmt: skip
        self._plan, self._network, self._chosen = plan, network, chosen
        self._methods = {method.label: method for method in methods}
        self._surrogates: dict[float, nn.Module] = {}

    def on(self, method: Method) -> list[BudgetedAttack]:
        return [
            self._made(label, epsilon, method)
            for label in self._plan.attacks
            for epsilon in self._plan.budgets(label)
        ]

    def try_surrogates(self, first: Tensor) -> None:
        """Errors: ValueError for a network without anything that softplus stands for."""
        for module in self._surrogates.values():
            with torch.no_grad():
                call(module, first)

    def _made(self, label: str, epsilon: float | None, method: Method) -> BudgetedAttack:
        given = attack_settings(self._plan, label)
        given.pop("epsilons", None)
        name, over = given.pop("attack"), given.pop("over", "epsilon")
        source, beta = given.pop("source", None), given.pop("surrogate", None)
        if source is not None or beta is not None:
            given["source"] = self._source(source or method.label, beta)
        labelled = given.get("labels") == OF_DATA
        if labelled:
            known_classes(self._chosen)
            del given["labels"]
        way = given.get("through")
        if isinstance(way, list):
            ways = (given.get("source") or method.explainer).derivatives
            given["through"] = next((w for w in way if w in ways), way[0] if way else None)
        if "space" in ATTACKS[name].defaults() and self._network.bounded:
            given.setdefault("space", self._network.space)
        try:
            attack = ATTACKS.build(name, method.explainer, **{**given, over: epsilon})
        except (ValueError, TypeError) as error:
            return BudgetedAttack(label=label, epsilon=epsilon, attack=None, reason=line(error))
        return BudgetedAttack(label=label, epsilon=epsilon, attack=attack, labelled=labelled)

    def _source(self, source: str, beta: float | None) -> Explainer:
        """The method that the steps are computed on."""
        settings: Settings
        if source in self._methods:
            method = self._methods[source]
            name, settings = method.name, method.explainer.settings()
        else:
            name, settings = spelt_out(source, {}, {}, self._plan.seed, self._network.model)
        module = self._network.model.module
        if beta is not None:
            if beta not in self._surrogates:
                self._surrogates[beta] = softplus_surrogate(module, beta)
            module = self._surrogates[beta]
        return built(name, module, settings)
