"""What is explored of an image: a method and its settings, as a command, a file and Python too."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moreaugrad.explainers import METHODS
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.moreau import GroupSparseMoreauGrad, Moreau
from moreaugrad.penalties import L1, groups
from moreaugrad.runs.maps.methods import made
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.explain import ExplainPlan
from moreaugrad.runs.plans.maps import takes
from moreaugrad.runs.plans.option import options, shown, with_options
from moreaugrad.runs.plans.toml import plan_toml
from moreaugrad.settings import expect

OUT = "maps"
"""Folder of the results, in the command."""


@dataclass(frozen=True, kw_only=True)
class State:
    """Everything that a map of an image depends on."""

    image: str
    method: str = "sparse-moreaugrad"
    target: int | None = None
    """None: the prediction."""
    against: int | None = None
    """The class that the target is compared with; None: the target's logit alone is explained."""
    sparsity: float = 0.9
    eta: float | None = None
    """Of the penalty, instead of the sparsity."""
    rho: float = 1.0
    sigma: float = 0.15
    seed: int = 0
    quality: str = "standard"

    def __post_init__(self) -> None:
        METHODS.check(self.method)
        expect(self.seed >= 0, "seed", "a number >= 0", self.seed)

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the method."""
        weight = {"sparsity": self.sparsity} if self.eta is None else {"eta": self.eta}
        score = {} if self.against is None else {"score": f"against:{self.against}"}
        every = {
            **score, **weight, "rho": self.rho, "sigma": self.sigma, "tolerance": self.quality,
        }  # fmt: skip
        return {name: value for name, value in every.items() if takes(self.method, name, value)}

    def explainer(self, network: Network) -> Explainer:
        """Errors: ValueError for settings that do not fit."""
        common = self.settings
        return made({self.method: {}}, common, self.seed, network, self.target)[0].explainer

    def options(self) -> dict[str, str]:
        """Of the command `explain`."""
        target = {} if self.target is None else {"--target": str(self.target)}
        seed = {"--seed": str(self.seed)} if self.seed else {}
        own = {
            f"--{name}": shown(value)
            for name, value in self.settings.items()
        }
        return {"--methods": self.method, **target, **own, **seed}

    def recipes(self, image: Mapping[str, Any], network: Mapping[str, str]) -> dict[str, str]:
        """The same map by a command, a TOML file and Python. image, network: their options."""
        given = {**network, **self.options()}
        words = [w for name, value in given.items() for w in (name, value)]
        files, data = image.get("IMAGE", []), {k: v for k, v in image.items() if k != "IMAGE"}
        words = [*files, *(w for option in data.items() for w in option), *words, "--out", OUT]
        plan = with_options(ExplainPlan(), {**image, **given})
        return {
            "command": shlex.join(["moreaugrad", "explain", *words]),
            "toml": plan_toml(plan, Path.cwd()),
            "python": self._python(files[0] if files else "photo.jpg", plan),
        }

    def _python(self, file: str, plan: ExplainPlan) -> str:
        model = {k: v for k, v in plan.model.arguments().items() if v}
        name = model.pop("name")
        inside = "".join(f", {k}={v!r}" for k, v in model.items())
        own = "".join(f", {k}={v!r}" for k, v in {**self.settings, "seed": self.seed}.items()
                      if takes(self.method, k, v))  # fmt: skip
        return (
            "import moreaugrad as mg\n"
            f"model = mg.load_model({name!r}{inside})\n"
            f"x = model.preprocess(mg.load_image({file!r}))[None]\n"
            f"result = mg.build({self.method!r}, model.module{own}).explain(x, {self.target})\n"
            'result.plot("map.png")\n'
        )


def given_options(plan: Any) -> dict[str, str]:
    """The options of a plan that do not have their default, as texts by their names."""
    found, usual = {}, type(plan)()
    for place, option in options(type(plan)):
        value, default = plan, usual
        for name in place:
            value, default = getattr(value, name), getattr(default, name)
        if value not in (default, None) and not option.is_flag:
            found[option.name] = shown(value)
    return found


def threshold(explainer: Explainer, shape: tuple[int, ...]) -> dict[str, Any]:
    """How a map comes of the averaged gradient: "soft" or "group" by the weight eta, or "keep", by
    the fraction of the largest entries that are shown."""
    if isinstance(explainer, GroupSparseMoreauGrad):
        if explainer.channels == "joint" and explainer.index is None:
            size = groups.chosen(explainer.group, shape, None, padded=False)
            sides = [size, size] if isinstance(size, int) else size
            if isinstance(sides, (list, tuple)):
                return {"kind": "group", "size": list(sides)}
    elif isinstance(explainer, Moreau) and isinstance(explainer.penalty, L1):
        return {"kind": "soft"}
    return {"kind": "keep"}
