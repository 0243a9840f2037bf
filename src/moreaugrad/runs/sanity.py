"""Whether maps depend on the weights: those of copies of a network with redrawn ones, as a run."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import tomli_w
import torch
from torch import Tensor

from moreaugrad.data.choice import choice, known_classes
from moreaugrad.data.dataset import files_digest
from moreaugrad.data.layouts import AUTO, open_dataset
from moreaugrad.explainers.base import Explainer
from moreaugrad.metrics import METRICS, build, randomisation
from moreaugrad.metrics.sanity import MODES, layers
from moreaugrad.registry import choose
from moreaugrad.runs.config import moved_network, relative, to_table
from moreaugrad.runs.estimate import Cost, Estimate, seconds_per_evaluation
from moreaugrad.runs.evaluate.plan import OF_LABEL, Settings
from moreaugrad.runs.job import ComputePlan, ModelPlan
from moreaugrad.runs.markdown import escaped
from moreaugrad.runs.network import Network, fixed_threads, resolved_device, weights_digest
from moreaugrad.runs.pace import Watch
from moreaugrad.runs.records import Record
from moreaugrad.runs.results import Failure
from moreaugrad.runs.study import Done, Study, StudyFolder
from moreaugrad.runs.team import Team
from moreaugrad.runs.variants import built


@dataclass(frozen=True, kw_only=True)
class SanityPlan:
    """data, layout, split, samples, seed, target: as for an evaluation. methods: settings by name.

    modes: "cascading" redraws block after block from the output on, "independent" one at a time.
    seeds: of the redrawing. blocks: names of modules, the nearest to the output first; () is all
    with weights of their own. metrics: of pairs of maps. calibrate: layers of batch normalisation
    take the statistics of the pictures after redrawing.
    """

    data: str
    layout: str = AUTO
    split: str | None = None
    samples: int = 16
    seed: int = 0
    target: int | str | None = None
    methods: Mapping[str, Settings] = field(default_factory=lambda: {"simple-gradient": {}})
    modes: tuple[str, ...] = MODES
    seeds: tuple[int, ...] = (0, 1, 2)
    blocks: tuple[str, ...] = ()
    metrics: tuple[str, ...] = ("ssim", "spearman", "spearman-signed")
    calibrate: bool = False
    model: ModelPlan = field(default_factory=ModelPlan)
    compute: ComputePlan = field(default_factory=ComputePlan)

    def __post_init__(self) -> None:
        for mode in self.modes:
            choose("modes", mode, MODES)
        pairs = [name for name, metric in METRICS.items() if metric.kind == "pair"]
        for metric in self.metrics:
            choose("metrics", metric, pairs)
        for name in ("modes", "metrics", "methods", "seeds"):
            if not getattr(self, name):
                raise ValueError(f"{name}: expected at least one, got none")
        if self.samples < 1:
            raise ValueError(f"samples: expected at least 1, got {self.samples}")


class SanityStudy(Study):
    """A unit is a method in a mode."""

    name = "sanity"
    command = "sanity"
    named: ClassVar[Mapping[str, str]] = {
        "data": "files", "model.weights": "network", "model.labels": "outputs",
    }  # fmt: skip

    def __init__(self, plan: SanityPlan, watch: Watch, team: Team | None = None) -> None:
        # A block is a layer as the network has it, with its batch normalisation beside it.
        compute = replace(
            plan.compute, device=(team or Team()).own(resolved_device(plan.compute.device)),
            fold_batchnorm=False, threads=plan.compute.threads or 1,
        )  # fmt: skip
        self.network = Network.load(plan.model, compute)
        self.plan = replace(plan, compute=self.network.compute)
        self.unreadable = 0
        self.x, self.ids, self.target = self._read(watch)
        for name, settings in plan.methods.items():
            with self.network.model.sized():
                built(name, self.network.model.module, settings).bind(self.x[:1])

    def _read(self, watch: Watch) -> tuple[Tensor, list[int], Tensor | None]:
        """Pictures as one batch, their ids, and the classes that are explained."""
        plan, network = self.plan, self.network
        data = open_dataset(plan.data, layout=plan.layout, split=plan.split)
        chosen, inputs = [], []
        for one in choice(data, plan.samples, plan.seed, network.model.labels):
            try:
                inputs.append(network.model.preprocess(data.load(one.item)))
                chosen.append(one)
            except (ValueError, OSError) as error:
                self.unreadable += 1
                watch.failed(Failure(title=one.item.name, message=str(error)))
        shapes = {tuple(x.shape) for x in inputs}
        if len(shapes) != 1:
            raise ValueError(
                f"{plan.data}: expected pictures that can be read and become inputs of one shape, "
                f"got {', '.join(map(str, sorted(shapes))) or 'none'}: give --resize and --crop"
            )
        wanted = None if plan.target == OF_LABEL else network.target(plan.target)
        classes = known_classes(chosen) if plan.target == OF_LABEL else [wanted] * len(chosen)
        target = None if None in classes else torch.tensor(classes, device=network.compute.device)
        self.files = files_digest((one.item.name, data.digest(one.item)) for one in chosen)
        return network.batch(inputs), [one.index for one in chosen], target

    def estimate(self) -> Estimate:
        """Of the maps, from a short timing of the network itself; nothing is written."""
        plan, module, first = self.plan, self.network.model.module, self.x[:1]
        blocks = plan.blocks or layers(module, first)
        maps = len(self.x) * (1 + len(plan.seeds) * len(blocks))
        made = {name: built(name, module, settings) for name, settings in plan.methods.items()}
        target = 0 if self.target is None else int(self.target[0])
        with fixed_threads(self.compute.threads):
            each = seconds_per_evaluation(next(iter(made.values())), first, target)
        most = {unit: made[unit.rpartition("-")[0]].budget() for unit in self.units}
        return Estimate(
            inputs=len(self.x), seconds_per_evaluation=each,
            costs=tuple(
                Cost(key=unit, maps=maps, evaluations=count, seconds=maps * count * each)
                for unit, count in most.items()
            ),
        )  # fmt: skip

    @property
    def compute(self) -> ComputePlan:
        return self.network.compute

    @property
    def units(self) -> Sequence[str]:
        return [f"{method}-{mode}" for method in self.plan.methods for mode in self.plan.modes]

    def config(self, folder: Path) -> str:
        plan = self.plan
        network = plan.model.resolved(self.network.model.preprocess)
        model = moved_network(network, lambda name: relative(name, folder))
        told = to_table(replace(plan, data=relative(plan.data, folder), model=model))
        # Other weights are another run.
        digests = {
            "network": weights_digest(self.network.model.module),
            "outputs": self.network.outputs_digest(),
            "files": self.files,
        }
        return tomli_w.dumps(told | digests)

    def begin(self, folder: StudyFolder, watch: Watch) -> None:
        """Nothing."""

    def do(self, unit: str, folder: StudyFolder, watch: Watch) -> Done | None:
        method, _, mode = unit.rpartition("-")
        plan = self.plan

        def make(module: torch.nn.Module) -> Explainer:
            return built(method, module, plan.methods[method])

        found = randomisation(
            self.network.model.module, make, self.x, self.target,
            mode=mode, blocks=plan.blocks or None, seeds=plan.seeds,
            similarities={name: build(name) for name in plan.metrics},
            calibration=self.x if plan.calibrate else None, ids=self.ids,
        )  # fmt: skip
        watch.pace(self.units.index(unit) + 1, len(self.units), unit)
        record = {
            "method": method, "mode": mode, "blocks": list(found.blocks),
            "seeds": list(found.seeds), "pictures": len(self.x),
            "similarity": {name: _plain(values) for name, values in found.similarity.items()},
        }  # fmt: skip
        return Done(record=record)

    def results(self, folder: StudyFolder) -> Record:
        rows = []
        for unit in self.units:
            record = folder.record(unit)
            for metric, values in record["similarity"].items():
                for place, block in enumerate(record["blocks"]):
                    every = [value for seed in values for value in seed[place]]
                    known = [value for value in every if value is not None]
                    rows.append(
                        {"method": record["method"], "mode": record["mode"], "block": block,
                         "metric": metric, "mean": math.fsum(known) / len(known) if known else None,
                         "defined": len(known), "undefined": len(every) - len(known)}
                    )  # fmt: skip
        return {
            "pictures": len(self.x), "unreadable": self.unreadable,
            "seeds": list(self.plan.seeds), "likeness": rows,
        }  # fmt: skip

    def table(self, results: Record) -> str:
        metrics, seeds, lost = self.plan.metrics, len(results["seeds"]), results["unreadable"]
        lines = [
            "# Maps of networks with redrawn weights",
            "",
            (
                "Mean likeness to the maps of the network itself, over "
                f"{results['pictures']} pictures and {seeds} draw{'s' * (seeds > 1)} of the "
                "weights; in brackets how many maps of redrawn networks have no value (zero "
                "everywhere, or not finite)."
                + (f" {lost} more pictures could not be read." if lost else "")
            ),
        ]
        found: dict[tuple[str, str], dict[str, dict[str, Any]]] = {}
        for row in results["likeness"]:
            blocks = found.setdefault((row["method"], row["mode"]), {})
            blocks.setdefault(row["block"], {})[row["metric"]] = row
        for (method, mode), blocks in found.items():
            what = "up to and with" if mode == "cascading" else "alone"
            lines += [
                "",
                f"## {method}, {mode}",
                "",
                f"| redrawn, {what} | " + " | ".join(metrics) + " |",
                "|---|" + "---:|" * len(metrics),
            ]
            for block, cells in blocks.items():
                told = " | ".join(_told(cells[metric]) for metric in metrics)
                lines.append(f"| {escaped(block or 'all')} | {told} |")
        return "\n".join(lines) + "\n"


def _plain(values: Tensor) -> list[Any]:
    """Nested numbers; None for NaN."""
    if values.ndim > 1:
        return [_plain(part) for part in values]
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _told(row: Mapping[str, Any]) -> str:
    lost = f" ({row['undefined']})" if row["undefined"] else ""
    return ("–" if row["mean"] is None else f"{row['mean']:.3f}") + lost
