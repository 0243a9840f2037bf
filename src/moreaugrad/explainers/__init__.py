"""Explainers, and the registry that finds them by name.

A new explainer is one class and one row here; the command line, the contract tests and the
documentation's tables read the rows.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, get_type_hints

from moreaugrad.registry import check_settings, choose

if TYPE_CHECKING:
    from moreaugrad.explainers.base import Explainer

MOREAUGRAD = "Zhang and Farnia (2023), arXiv 2302.05294"
CASO = "Singla et al. (2019), arXiv 1902.00407"


@dataclass(frozen=True)
class Method:
    """A row of the registry: where the class is, and the settings that make this method of it."""

    target: str
    summary: str
    paper: str
    settings: Mapping[str, Any] = field(default_factory=dict)

    def load(self) -> type[Explainer]:
        module, name = self.target.split(":")
        found: type[Explainer] = getattr(importlib.import_module(module), name)
        return found

    def defaults(self) -> dict[str, Any]:
        """Every setting with its default, the model left out."""
        given = {item.name: item.default for item in fields(self.load())[1:]}
        return given | dict(self.settings)


_GRADIENT = "moreaugrad.explainers.gradient:"
_CAPTUM = "moreaugrad.explainers.captum:"
_MOREAU = "moreaugrad.explainers.moreau:"
_CASO = "moreaugrad.explainers.caso:"

METHODS: Mapping[str, Method] = {
    "simple-gradient": Method(
        _GRADIENT + "SimpleGradient",
        "gradient of the score",
        "Simonyan et al. (2014)",
    ),
    "gradient-x-input": Method(
        _GRADIENT + "SimpleGradient",
        "gradient times input",
        "Shrikumar et al. (2016)",
        {"times_input": True},
    ),
    "sparse-gradient": Method(
        _GRADIENT + "SimpleGradient",
        "gradient, cut to its largest tenth",
        "baseline",
        {"keep": 0.1},
    ),
    "smoothgrad": Method(
        _GRADIENT + "SmoothGrad",
        "mean gradient under Gaussian noise",
        "Smilkov et al. (2017)",
    ),
    "sparsified-smoothgrad": Method(
        "moreaugrad.explainers.sparsified:SparsifiedSmoothGrad",
        "how often an entry is among the noisy gradient's largest",
        "Levine et al. (2019), arXiv 1905.12105",
    ),
    "integrated-gradients": Method(
        _CAPTUM + "IntegratedGradients",
        "mean gradient on the path from a baseline, times the input's difference",
        "Sundararajan et al. (2017)",
    ),
    "integrated-gradients-local": Method(
        _CAPTUM + "IntegratedGradients",
        "mean gradient on the path from a baseline",
        "Sundararajan et al. (2017)",
        {"times_input": False},
    ),
    "deeplift": Method(
        "moreaugrad.explainers.deeplift:DeepLift",
        "contributions relative to a baseline, rescale rule",
        "Shrikumar et al. (2017)",
    ),
    "grad-cam": Method(
        "moreaugrad.explainers.gradcam:GradCAM",
        "gradient-weighted activations of a layer with positions",
        "Selvaraju et al. (2017)",
    ),
    "cafo": Method(
        _CASO + "CAFO",
        "displacement that changes the loss most, to first order: a thresholded gradient",
        CASO,
    ),
    "caso": Method(
        _CASO + "CASO",
        "the same to second order, by the loss's Hessian",
        CASO,
    ),
    "smooth-cafo": Method(
        _CASO + "SmoothCAFO",
        "CAFO of the mean loss under Gaussian noise",
        CASO,
    ),
    "smooth-caso": Method(
        _CASO + "SmoothCASO",
        "CASO of the mean loss under Gaussian noise",
        CASO,
    ),
    "relex": Method(
        "moreaugrad.explainers.relex:RelEx",
        "mask that keeps the class where it shows the input and removes it where it hides it",
        "Lim et al. (2021), arXiv 2103.14332",
    ),
    "moreaugrad": Method(
        _MOREAU + "MoreauGrad",
        "gradient of the smoothed score's Moreau envelope",
        MOREAUGRAD,
    ),
    "sparse-moreaugrad": Method(
        _MOREAU + "SparseMoreauGrad",
        "the same with an L1 penalty: a few entries",
        MOREAUGRAD,
    ),
    "group-sparse-moreaugrad": Method(
        _MOREAU + "GroupSparseMoreauGrad",
        "the same with a group penalty: a few blocks",
        MOREAUGRAD,
    ),
    "moreaugrad-plain": Method(
        _MOREAU + "MoreauGrad",
        "MoreauGrad without Gaussian smoothing",
        MOREAUGRAD,
        {"sigma": 0.0},
    ),
    "sparse-moreaugrad-plain": Method(
        _MOREAU + "SparseMoreauGrad",
        "Sparse MoreauGrad without Gaussian smoothing",
        MOREAUGRAD,
        {"sigma": 0.0},
    ),
    "group-sparse-moreaugrad-plain": Method(
        _MOREAU + "GroupSparseMoreauGrad",
        "group-sparse MoreauGrad without Gaussian smoothing",
        MOREAUGRAD,
        {"sigma": 0.0},
    ),
    "published-moreaugrad": Method(
        "moreaugrad.explainers.published:PublishedMoreauGrad",
        "the paper's algorithm as released, for comparison",
        MOREAUGRAD,
        {"sign": "gradient"},
    ),
}


def build(name: str, model: Any, **settings: Any) -> Explainer:
    """The explainer of that name. Errors: ValueError for an unknown name or setting, and a value
    of another type."""
    method = METHODS[choose("method", name, METHODS)]
    check_settings(name, list(method.defaults()), get_type_hints(method.load()), settings)
    return method.load()(model, **(dict(method.settings) | settings))
