"""Explanation methods by name. A new one is one class and one row here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from moreaugrad.penalties import catalogue as penalties
from moreaugrad.registry import Registry, Row

if TYPE_CHECKING:
    from moreaugrad.explainers.base import Explainer

MOREAUGRAD = "Zhang and Farnia (2023), arXiv 2302.05294"
CASO = "Singla et al. (2019), arXiv 1902.00407"


@dataclass(frozen=True)
class NamedMethod(Row):
    """A row of the registry."""

    def read(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """With a penalty that is given by its name."""
        own = dict(settings)
        if isinstance(own.get("penalty"), (str, Mapping)):
            own["penalty"] = penalties.read(own["penalty"])
        return own


_GRADIENT = "moreaugrad.explainers.gradient:"
_CAPTUM = "moreaugrad.explainers.path:"
_MOREAU = "moreaugrad.explainers.moreau:"
_CAFO = "moreaugrad.explainers.cafo:"
_CASO = "moreaugrad.explainers.caso:"

METHODS = Registry(
    "method",
    {
        "simple-gradient": NamedMethod(
            _GRADIENT + "SimpleGradient",
            "gradient of the score",
            "Simonyan et al. (2014)",
        ),
        "gradient-x-input": NamedMethod(
            _GRADIENT + "SimpleGradient",
            "gradient times input",
            "Shrikumar et al. (2016)",
            {"times_input": True},
        ),
        "sparse-gradient": NamedMethod(
            _GRADIENT + "SimpleGradient",
            "gradient, cut to its largest tenth",
            "baseline",
            {"keep": 0.1},
        ),
        "smoothgrad": NamedMethod(
            _GRADIENT + "SmoothGrad",
            "mean gradient under Gaussian noise",
            "Smilkov et al. (2017)",
        ),
        "sparsified-smoothgrad": NamedMethod(
            "moreaugrad.explainers.sparsified:SparsifiedSmoothGrad",
            "how often an entry is among the noisy gradient's largest",
            "Levine et al. (2019), arXiv 1905.12105",
        ),
        "integrated-gradients": NamedMethod(
            _CAPTUM + "IntegratedGradients",
            "mean gradient on the path from a baseline, times the input's difference",
            "Sundararajan et al. (2017)",
        ),
        "integrated-gradients-local": NamedMethod(
            _CAPTUM + "IntegratedGradients",
            "mean gradient on the path from a baseline",
            "Sundararajan et al. (2017)",
            {"times_input": False},
        ),
        "deeplift": NamedMethod(
            "moreaugrad.explainers.deeplift:DeepLift",
            "contributions relative to a baseline, rescale rule",
            "Shrikumar et al. (2017)",
        ),
        "grad-cam": NamedMethod(
            "moreaugrad.explainers.gradcam:GradCAM",
            "gradient-weighted activations of a layer with positions",
            "Selvaraju et al. (2017)",
        ),
        "cafo": NamedMethod(
            _CAFO + "CAFO",
            "displacement that changes the loss most, to first order: a thresholded gradient",
            CASO,
        ),
        "caso": NamedMethod(
            _CASO + "CASO",
            "displacement that changes the loss most, to second order, by its Hessian",
            CASO,
        ),
        "smooth-cafo": NamedMethod(
            _CAFO + "SmoothCAFO",
            "CAFO of the mean loss under Gaussian noise",
            CASO,
        ),
        "smooth-caso": NamedMethod(
            _CASO + "SmoothCASO",
            "CASO of the mean loss under Gaussian noise",
            CASO,
        ),
        "relex": NamedMethod(
            "moreaugrad.explainers.relex:RelEx",
            "mask that keeps the class where it shows the input and removes it where it hides it",
            "Lim et al. (2021), arXiv 2103.14332",
        ),
        "moreaugrad": NamedMethod(
            _MOREAU + "MoreauGrad",
            "gradient of the smoothed score's Moreau envelope",
            MOREAUGRAD,
        ),
        "sparse-moreaugrad": NamedMethod(
            _MOREAU + "SparseMoreauGrad",
            "MoreauGrad with an L1 penalty: a few entries",
            MOREAUGRAD,
        ),
        "group-sparse-moreaugrad": NamedMethod(
            _MOREAU + "GroupSparseMoreauGrad",
            "MoreauGrad with a group penalty: a few blocks",
            MOREAUGRAD,
        ),
        "moreaugrad-plain": NamedMethod(
            _MOREAU + "MoreauGrad",
            "MoreauGrad without Gaussian smoothing",
            MOREAUGRAD,
            {"sigma": 0.0},
        ),
        "sparse-moreaugrad-plain": NamedMethod(
            _MOREAU + "SparseMoreauGrad",
            "Sparse MoreauGrad without Gaussian smoothing",
            MOREAUGRAD,
            {"sigma": 0.0},
        ),
        "group-sparse-moreaugrad-plain": NamedMethod(
            _MOREAU + "GroupSparseMoreauGrad",
            "group-sparse MoreauGrad without Gaussian smoothing",
            MOREAUGRAD,
            {"sigma": 0.0},
        ),
        "published-moreaugrad": NamedMethod(
            "moreaugrad.explainers.published:PublishedMoreauGrad",
            "the paper's algorithm as released, for comparison",
            MOREAUGRAD,
            {"sign": "gradient"},
        ),
    },
    ["moreaugrad.explainers.base:Explainer"],
)
"""All methods by name; `METHODS[name].load()` is the class, `.summary` what it is."""


def build(name: str, model: Any, **settings: Any) -> Explainer:
    """The explainer of that name, or of a `package.module:Class` of your own, on a model.

    >>> result = mg.build("smoothgrad", model, samples=32).explain(x)

    A `penalty` may be given as text too, such as "elastic-net 0.01 0.05".
    Errors: ValueError for an unknown name or setting, and a value of another type.
    """
    found: Explainer = METHODS.build(name, model, **settings)
    return found
