"""What is explored of an input: a method and its settings, as a command, a file and Python too."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moreaugrad.explainers import METHODS
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.moreau import GroupSparseMoreauGrad, Moreau
from moreaugrad.penalties import L1, groups
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.maps.methods import made
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.maps import takes
from moreaugrad.runs.recipes import python_call, recipes
from moreaugrad.score.noise import DEFAULT_SIGMA


@dataclass(frozen=True, kw_only=True)
class State:
    """Everything that a map of an input depends on."""

    image: str
    method: str = "sparse-moreaugrad"
    target: int | str | None = None
    """As on the command line; None: the prediction."""
    against: int | None = None
    """The class that the target is compared with; None: the target's logit alone is explained."""
    sparsity: float = 0.9
    eta: float | None = None
    """Of the penalty, instead of the sparsity."""
    rho: float = 1.0
    sigma: float = DEFAULT_SIGMA
    seed: int = 0
    quality: str = "standard"

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the method."""
        every = {
            "score": None if self.against is None else f"against:{self.against}",
            "sparsity": self.sparsity if self.eta is None else None, "eta": self.eta,
            "rho": self.rho, "sigma": self.sigma, "tolerance": self.quality, "seed": self.seed,
        }  # fmt: skip
        name = METHODS.check(self.method)
        return {k: v for k, v in every.items() if v is not None and takes(name, k, v)}

    def explainer(self, network: Network, texts: Inputs | None) -> Explainer:
        """Errors: ValueError for settings that do not fit."""
        named: dict[str, Any] = {self.method: {}}
        return made(named, self.settings, self.seed, network, None, inputs=texts)[0].explainer

    def recipes(
        self, image: Mapping[str, Any], network: Mapping[str, Any] | None, target: object
    ) -> dict[str, str]:
        """The same map by a command, a TOML file and Python.

        image, network: their options; without those of the network, it is `model` in Python.
        target: in Python.
        """
        if network is None:
            return {"python": f"result = {python_call(self.method, self.settings, target)}\n"}
        aim = {} if self.target is None else {"--target": str(self.target)}
        data = {name: value for name, value in image.items() if name != "IMAGE"}
        given = {**data, **network, **aim}
        return recipes(image.get("IMAGE", ()), given, self.method, self.settings, target)


def threshold(explainer: Explainer, shape: tuple[int, ...]) -> dict[str, Any]:
    """How a map comes of the averaged gradient: "soft" or "group", by the weight eta, or "keep":
    the largest entries are shown."""
    if isinstance(explainer, GroupSparseMoreauGrad):
        size: Any = groups.chosen(explainer.group, shape, None, padded=False)
        return {"kind": "group", "size": [size, size] if isinstance(size, int) else list(size)}
    soft = isinstance(explainer, Moreau) and isinstance(explainer.penalty, L1)
    return {"kind": "soft" if soft else "keep"}
