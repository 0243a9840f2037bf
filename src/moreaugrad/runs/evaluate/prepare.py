"""A plan made ready: pictures chosen, network loaded, every setting spelt out and tried."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from moreaugrad.attacks import ATTACKS
from moreaugrad.attacks import build as build_attack
from moreaugrad.attacks.base import Attack
from moreaugrad.data.layouts import DataSet, Item, open_dataset
from moreaugrad.explainers import METHODS
from moreaugrad.explainers.base import Explainer
from moreaugrad.metrics import METRICS
from moreaugrad.metrics import build as build_metric
from moreaugrad.names import choose
from moreaugrad.runs.evaluate.plan import OF_DATA, OF_LABEL, EvaluatePlan, Settings
from moreaugrad.runs.evaluate.team import Team
from moreaugrad.runs.network import Network, fixed_threads, resolved_device
from moreaugrad.runs.run import line
from moreaugrad.runs.variants import built, told_std
from moreaugrad.space import InputSpace
from moreaugrad.surrogate import softplus_surrogate

BY_MAP, BY_PAIR, BY_MODEL, BY_MASK = "map", "pair", "model", "mask"


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """A picture to evaluate. index: its place in the data set, which keys its noise."""

    index: int
    item: Item


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
        return self.label if self.epsilon is None else f"{self.label} {self.epsilon:g}"


@dataclass(frozen=True, kw_only=True, eq=False)
class Judge:
    """A metric by its label."""

    label: str
    kind: str
    measure: Any


@dataclass(frozen=True, kw_only=True, eq=False)
class PreparedEvaluate:
    """`plan` has every choice made. threats: of each method, by its label."""

    plan: EvaluatePlan
    network: Network
    data: DataSet
    chosen: Sequence[Chosen]
    explainers: Mapping[str, Explainer]
    threats: Mapping[str, Sequence[Threat]]
    judges: Sequence[Judge]
    space: InputSpace
    team: Team
    first: Tensor
    """The first readable picture as a batch of one."""

    @property
    def task(self) -> str:
        return next(iter(self.explainers.values())).task

    @property
    def blocks(self) -> range:
        return range(-(-len(self.chosen) // self.plan.block))

    def block(self, number: int) -> Sequence[Chosen]:
        size = self.plan.block
        return self.chosen[number * size : (number + 1) * size]

    def input(self, one: Chosen) -> Tensor:
        """`[C, H, W]`. Errors: ValueError, OSError for a picture that cannot be read."""
        return self.network.model.preprocess(self.data.load(one.item))

    def targets(self, chosen: Sequence[Chosen]) -> Tensor | int | None:
        """The classes to explain. Errors: ValueError for a picture whose label is not known."""
        if self.plan.target != OF_LABEL:
            return self.network.target(self.plan.target)
        return torch.tensor(known_classes(chosen), device=self.network.compute.device)


def known_classes(chosen: Sequence[Chosen]) -> list[int]:
    """The data set's class of each picture. Errors: ValueError where it is not known."""
    found = [one.item.index for one in chosen]
    if None in found:
        raise ValueError(
            f"{chosen[found.index(None)].item.name}: expected a class index, which this layout "
            "does not tell; explain the predictions instead"
        )
    return [index for index in found if index is not None]


def prepare_evaluate(plan: EvaluatePlan, team: Team | None = None) -> PreparedEvaluate:
    """Errors: ValueError or TypeError for whatever cannot work; nothing is written."""
    team = team or Team()
    data = open_dataset(plan.data, layout=plan.layout, split=plan.split)
    chosen = _chosen(data, plan)
    # Sums of another number of threads round differently, and torchrun sets one.
    compute = replace(
        plan.compute, threads=plan.compute.threads or 1,
        device=resolved_device(plan.compute.device),
    )  # fmt: skip
    own = compute
    if compute.device == "cuda" and team.size > 1:
        own = replace(compute, device=f"cuda:{team.local_rank}")
    network = Network.load(plan.model, own)
    preprocess = network.model.preprocess
    space = InputSpace(mean=preprocess.mean, std=preprocess.std)
    resolved = {label: _told(label, plan.methods[label], network) for label in plan.methods}
    with fixed_threads(network.compute.threads):
        explainers = {
            label: built(name, network.model.module, settings)
            for label, (name, settings) in resolved.items()
        }
        judges = [_judge(label, settings) for label, settings in plan.metrics.items()]
        maker = _Threats(plan, network, resolved, space, chosen)
        threats = {label: maker.on(label, explainers[label]) for label in explainers}
        _check_suited(threats)
        first = _first(data, chosen, network)
    prepared = PreparedEvaluate(
        plan=replace(
            plan,
            samples=len(chosen),
            layout=data.layout,
            chosen=_digest(repr([(one.index, one.item) for one in chosen]).encode()),
            network=_network_digest(network.model.module),
            model=replace(plan.model, preprocess=preprocess),
            compute=replace(network.compute, device=compute.device),
            metrics={
                label: {"metric": name, **METRICS[name].settings, **plan.metrics[label]}
                for label in plan.metrics
                for name in [plan.metrics[label].get("metric", label)]
            },
            attacks={label: _attack_told(plan, label) for label in plan.attacks},
            methods={
                label: {"method": resolved[label][0], **explainer.settings()}
                for label, explainer in explainers.items()
            },
        ),
        network=network, data=data, chosen=chosen, explainers=explainers, threats=threats,
        judges=judges, space=space, team=team, first=first,
    )  # fmt: skip
    prepared.targets(chosen)
    next(iter(explainers.values())).bind(first)
    return prepared


def _chosen(data: DataSet, plan: EvaluatePlan) -> list[Chosen]:
    """The first of an order that `seed` draws, so that more samples contain the fewer."""
    count = len(data.items)
    wanted = min(count, plan.samples or count)
    order = np.random.default_rng(plan.seed).permutation(count)[:wanted]
    return [Chosen(index=index, item=data.items[index]) for index in sorted(order.tolist())]


def _first(data: DataSet, chosen: Sequence[Chosen], network: Network) -> Tensor:
    problem = ""
    for one in chosen:
        try:
            return network.batch([network.model.preprocess(data.load(one.item))])
        except (ValueError, OSError) as error:
            problem = problem or str(error)
    raise ValueError(f"expected pictures, but none of {len(chosen)} can be read: {problem}")


def _check_suited(threats: Mapping[str, Sequence[Threat]]) -> None:
    """Errors: ValueError for an attack that suits no method."""
    for of_methods in zip(*threats.values(), strict=True):
        if all(threat.attack is None for threat in of_methods):
            raise ValueError(f"{of_methods[0].label}: {of_methods[0].reason}")


def _told(label: str, given: Settings, network: Network) -> tuple[str, Settings]:
    """A method's name in the registry and its settings."""
    settings = dict(given)
    name = choose("method", settings.pop("method", label), METHODS)
    return name, told_std(name, settings, network.model.preprocess)


def _judge(label: str, given: Settings) -> Judge:
    settings = dict(given)
    name = choose("metric", settings.pop("metric", label), METRICS)
    kind = METRICS[name].kind
    if kind == BY_MASK:
        raise ValueError(
            f"{name}: needs masks of where maps should point, and no layout of data has any; see "
            "moreaugrad.metrics"
        )
    return Judge(label=label, kind=kind, measure=build_metric(name, **settings))


def _attack_told(plan: EvaluatePlan, label: str) -> dict[str, Any]:
    """An attack's settings, those spelt out that were not given."""
    given = plan.attacks[label]
    name = given.get("attack", label)
    usual = ATTACKS[name].defaults()
    plain = {key: v for key, v in usual.items() if isinstance(v, (str, int, float))}
    plain.pop(given.get("over", ""), None)
    return {"attack": name, **plain, **given}


class _Threats:
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

    def _threat(
        self, label: str, epsilon: float | None, method: str, explainer: Explainer
    ) -> Threat:
        given = dict(self._plan.attacks[label])
        given.pop("epsilons", None)
        over = given.pop("over", "epsilon")
        name = choose("attack", given.pop("attack", label), ATTACKS)
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
        name, settings = self._methods.get(source) or _told(source, {}, self._network)
        module = self._network.model.module
        if beta is not None:
            if beta not in self._surrogates:
                self._surrogates[beta] = softplus_surrogate(module, beta)
            module = self._surrogates[beta]
        return built(name, module, settings)


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]


def _network_digest(module: nn.Module) -> str:
    """Of all weights: another training of the same architecture is another configuration."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        data = value.detach().cpu().contiguous()
        digest.update(f"{name} {data.dtype} {list(data.shape)}".encode())
        digest.update(data.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]
