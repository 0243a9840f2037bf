"""A plan made ready: pictures chosen, network loaded, every setting spelt out and tried."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from moreaugrad.data.choice import Chosen, choice, known_classes
from moreaugrad.data.dataset import DataSet, files_digest
from moreaugrad.data.layouts import open_dataset
from moreaugrad.explainers.base import Explainer
from moreaugrad.runs.evaluate.judges import BY_MASK, BY_TRUTH, Judge, make_judge, metric_told
from moreaugrad.runs.evaluate.plan import OF_LABEL, EvaluatePlan
from moreaugrad.runs.evaluate.threats import Threat, Threats, attack_told, check_suited, method_told
from moreaugrad.runs.network import Network, fixed_threads, resolved_device, weights_digest
from moreaugrad.runs.team import Team
from moreaugrad.runs.variants import built
from moreaugrad.score.pixels import InputSpace


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

    def truth(self, one: Chosen) -> Tensor | None:
        """The true map `[H, W]` in [0, 1] as the network sees it; None where there is none that
        can be read. Values are not mixed, so that steps stay steps."""
        try:
            found = self.data.load_attention(one.item)
        except (ValueError, OSError):
            return None
        if found is None:
            return None
        like = replace(
            self.network.model.preprocess, mean=(0.0,), std=(1.0,), interpolation="nearest"
        )
        return like(found)[0]

    def targets(self, chosen: Sequence[Chosen]) -> Tensor | int | None:
        """The classes to explain. Errors: ValueError for a picture whose label is not known."""
        if self.plan.target != OF_LABEL:
            return self.network.target(self.plan.target)
        return torch.tensor(known_classes(chosen), device=self.network.compute.device)


def prepare_evaluate(plan: EvaluatePlan, team: Team | None = None) -> PreparedEvaluate:
    """Errors: ValueError or TypeError for whatever cannot work; nothing is written."""
    team = team or Team()
    data = open_dataset(plan.data, layout=plan.layout, split=plan.split)
    # Sums of another number of threads round differently, and torchrun sets one.
    device = resolved_device(plan.compute.device)
    compute = replace(plan.compute, threads=plan.compute.threads or 1, device=team.own(device))
    network = Network.load(plan.model, compute)
    chosen = choice(data, plan.samples, plan.seed, network.model.labels)
    preprocess = network.model.preprocess
    space = InputSpace(mean=preprocess.mean, std=preprocess.std)
    resolved = {label: method_told(label, plan.methods[label], network) for label in plan.methods}
    metrics = {label: metric_told(plan, label) for label in plan.metrics}
    with fixed_threads(network.compute.threads):
        explainers = {
            label: built(name, network.model.module, settings)
            for label, (name, settings) in resolved.items()
        }
        judges = [make_judge(label, settings) for label, settings in metrics.items()]
        _check_truth(judges, chosen)
        maker = Threats(plan, network, resolved, space, chosen)
        threats = {label: maker.on(label, explainers[label]) for label in explainers}
        check_suited(threats)
        first = _first(data, chosen, network)
        maker.try_surrogates(first)
    prepared = PreparedEvaluate(
        plan=replace(
            plan,
            samples=len(chosen),
            layout=data.layout,
            chosen=_digest(repr([(one.index, one.item) for one in chosen]).encode()),
            network=weights_digest(network.model.module),
            files=files_digest((one.item.name, data.digest(one.item)) for one in chosen),
            outputs=network.outputs_digest(),
            model=plan.model.resolved(preprocess),
            compute=replace(network.compute, device=device),
            metrics=metrics,
            attacks={label: attack_told(plan, label) for label in plan.attacks},
            methods={
                label: {"method": resolved[label][0], **explainer.settings()}
                for label, explainer in explainers.items()
            },
        ),
        network=network, data=data, chosen=chosen, explainers=explainers, threats=threats,
        judges=judges, space=space, team=team, first=first,
    )  # fmt: skip
    prepared.targets(chosen)
    with network.model.sized():
        next(iter(explainers.values())).bind(first)
    return prepared


def _check_truth(judges: Sequence[Judge], chosen: Sequence[Chosen]) -> None:
    asks = [judge.label for judge in judges if judge.kind in (BY_MASK, BY_TRUTH)]
    if asks and not any(one.item.attention for one in chosen):
        raise ValueError(
            f"{asks[0]}: needs maps of where a picture should be looked at, and these data have "
            "none; `moreaugrad data cells` writes some that have, CUB-GHA is another"
        )


def _first(data: DataSet, chosen: Sequence[Chosen], network: Network) -> Tensor:
    problem = ""
    for one in chosen:
        try:
            return network.tried(network.model.preprocess(data.load(one.item)))
        except (ValueError, OSError) as error:
            problem = problem or str(error)
    raise ValueError(f"expected pictures, but none of {len(chosen)} can be read: {problem}")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16]
