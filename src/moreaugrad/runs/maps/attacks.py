"""The attacks of an evaluation: each at each of its budgets, on each method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from moreaugrad.attacks import ATTACKS
from moreaugrad.attacks.base import Attack
from moreaugrad.curvature.second_derivatives import softplus_surrogate
from moreaugrad.data.dataset import Chosen, known_classes
from moreaugrad.explainers.base import Explainer
from moreaugrad.files.foreign import number_name
from moreaugrad.runs.directory import line
from moreaugrad.runs.maps.methods import Method, built, spelt_out
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.explain import OF_DATA, EvaluatePlan
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


def attacks_on(
    methods: Sequence[Method], plan: EvaluatePlan, network: Network, chosen: Sequence[Chosen],
    first: Tensor,
) -> dict[str, list[BudgetedAttack]]:  # fmt: skip
    """Every attack at every budget on each method, by its label. first: an input of the network.

    Errors: ValueError for an attack that suits no method, shared budgets of different kinds or of
    no attack, and a network without anything that softplus stands for.
    """
    _check_budgets(plan)
    known = {method.label: method for method in methods}
    maker = _AttackMaker(plan=plan, network=network, methods=known, chosen=chosen, first=first)
    pairs = [(label, epsilon) for label in plan.attacks for epsilon in plan.budgets(label)]
    found = {m.label: [maker.attack(label, e, m) for label, e in pairs] for m in methods}
    for of_methods in zip(*found.values(), strict=True):
        if all(one.attack is None for one in of_methods):
            raise ValueError(f"{of_methods[0].label}: {of_methods[0].reason}")
    return found


def _check_budgets(plan: EvaluatePlan) -> None:
    """Errors: ValueError for budgets without an attack, and for attacks that share budgets in
    different norms or units: the worst of them would be that of the largest ball."""
    if plan.epsilons and not plan.attacks:
        raise ValueError(
            "epsilons: expected an attack that has these budgets (--attack NAME), got none"
        )
    found: dict[str, str] = {}
    for label in plan.attacks if plan.epsilons else ():
        given = attack_settings(plan, label)
        if {"epsilons", "over"}.isdisjoint(given) and {"norm", "units"} <= given.keys():
            found.setdefault(f"{given['norm']} in {given['units']} units", label)
    if len(found) > 1:
        kinds = ", ".join(f"{kind} ({label})" for kind, label in found.items())
        raise ValueError(
            "attacks: expected one norm and one unit of those that share --epsilons, because the "
            f"worst of them is taken; got {kinds}; give one of them its own budgets: epsilons=[...]"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _AttackMaker:
    """surrogates: softplus networks by beta, each made once."""

    plan: EvaluatePlan
    network: Network
    methods: Mapping[str, Method]
    chosen: Sequence[Chosen]
    first: Tensor
    surrogates: dict[float, nn.Module] = field(default_factory=dict)

    def attack(self, label: str, epsilon: float | None, method: Method) -> BudgetedAttack:
        given = attack_settings(self.plan, label)
        given.pop("epsilons", None)
        name, over = given.pop("attack"), given.pop("over", "epsilon")
        source, beta = given.pop("source", None), given.pop("surrogate", None)
        if source is not None or beta is not None:
            given["source"] = self._source(source or method.label, beta, method.explainer)
        labelled = given.get("labels") == OF_DATA
        if labelled:
            known_classes(self.chosen)
            del given["labels"]
        way = given.get("through")
        if isinstance(way, list):
            ways = (given.get("source") or method.explainer).derivatives
            given["through"] = next((w for w in way if w in ways), way[0] if way else None)
        if "space" in ATTACKS[name].defaults() and self.network.bounded:
            given.setdefault("space", self.network.space)
        try:
            attack = ATTACKS.build(name, method.explainer, **{**given, over: epsilon})
        except (ValueError, TypeError) as error:
            return BudgetedAttack(label=label, epsilon=epsilon, attack=None, reason=line(error))
        return BudgetedAttack(label=label, epsilon=epsilon, attack=attack, labelled=labelled)

    def _source(self, source: str, beta: float | None, attacked: Explainer) -> Explainer:
        """The method that the steps are computed on. A name takes over the noise level that the
        attacked method has."""
        module = self.network.model.module
        if beta is not None:
            if beta not in self.surrogates:
                self.surrogates[beta] = softplus_surrogate(module, beta)
                with torch.no_grad():
                    call(self.surrogates[beta], self.first)
            module = self.surrogates[beta]
        if source in self.methods:
            return replace(self.methods[source].explainer, forward_func=module)
        level = {name: getattr(attacked, name, None) for name in ("sigma", "sigma_mode")}
        shared = {k: v for k, v in level.items() if v is not None} if level["sigma"] else {}
        name, settings = spelt_out(source, {}, shared, self.plan.seed, self.network)
        return built(name, module, settings)
