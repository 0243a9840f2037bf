"""Explanation methods by name. A new method is one class and one row here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from moreaugrad.penalties import catalogue as penalties
from moreaugrad.registry import Registry, Row

if TYPE_CHECKING:
    from moreaugrad.explainers.base import Explainer

MOREAUGRAD = "Zhang and Farnia (2023), arXiv 2302.05294"
CASO = "Singla et al. (2019), arXiv 1902.00407"
SUNDARARAJAN = "Sundararajan et al. (2017)"


@dataclass(frozen=True)
class _Method(Row):
    @classmethod
    def of(cls, name: str, part: Any) -> Self:
        """Also of a class derived from Captum's `Attribution`. Errors: ValueError for one whose
        maps are not of the input."""
        found = super().of(name, part)
        found.load()
        return found

    def load(self) -> Any:
        from moreaugrad.explainers.base import Explainer
        from moreaugrad.explainers.captum_classes import adapted

        part = super().load()
        return part if issubclass(part, Explainer) else adapted(part)

    def read(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Settings as given in a file, with a penalty's name replaced by the penalty."""
        own = dict(settings)
        if isinstance(own.get("penalty"), (str, Mapping)):
            own["penalty"] = penalties.read(own["penalty"])
        return own


def _method(target: str, summary: str, source: str, **settings: Any) -> _Method:
    return _Method(f"moreaugrad.explainers.{target}", summary, source, settings)


_ROWS = {
    "simple-gradient": _method(
        "gradient:SimpleGradient", "gradient of the score", "Simonyan et al. (2014)"
    ),
    "gradient-x-input": _method(
        "gradient:SimpleGradient", "gradient times input", "Shrikumar et al. (2016)",
        times_input=True,
    ),
    "sparse-gradient": _method(
        "gradient:SimpleGradient", "gradient, keeping its largest tenth", "baseline", keep=0.1
    ),
    "smoothgrad": _method(
        "gradient:SmoothGrad", "mean gradient under Gaussian noise", "Smilkov et al. (2017)"
    ),
    "sparse-smoothgrad": _method(
        "gradient:SmoothGrad", "SmoothGrad, keeping its largest tenth", "baseline", keep=0.1
    ),
    "sparsified-smoothgrad": _method(
        "sparsified:SparsifiedSmoothGrad",
        "how often an entry is among the noisy gradient's largest",
        "Levine et al. (2019), arXiv 1905.12105",
    ),
    "integrated-gradients": _method(
        "path:IntegratedGradients",
        "mean gradient on the path from a baseline, times the input's difference", SUNDARARAJAN,
    ),
    "integrated-gradients-local": _method(
        "path:IntegratedGradients", "mean gradient on the path from a baseline", SUNDARARAJAN,
        times_input=False,
    ),
    "expected-gradients": _method(
        "expected:ExpectedGradients",
        "integrated gradients, averaged over baselines that are drawn from data",
        "Erion et al. (2021), arXiv 1906.10670",
    ),
    "deeplift": _method(
        "deeplift:DeepLift", "contributions relative to a baseline, rescale rule",
        "Shrikumar et al. (2017)",
    ),
    "grad-cam": _method(
        "gradcam:GradCAM", "gradient-weighted activations of a layer with positions",
        "Selvaraju et al. (2017)",
    ),
    "cafo": _method(
        "cafo:CAFO",
        "displacement that changes the loss most, to first order: a thresholded gradient", CASO,
    ),
    "caso": _method(
        "caso:CASO", "displacement that changes the loss most, to second order, by its Hessian",
        CASO,
    ),
    "smooth-cafo": _method("cafo:SmoothCAFO", "CAFO of the mean loss under Gaussian noise", CASO),
    "smooth-caso": _method("caso:SmoothCASO", "CASO of the mean loss under Gaussian noise", CASO),
    "relex": _method(
        "relex:RelEx",
        "mask that keeps the class where it shows the input and removes it where it hides it",
        "Lim et al. (2021), arXiv 2103.14332",
    ),
    "moreaugrad": _method(
        "moreau:MoreauGrad", "gradient of the smoothed score's Moreau envelope", MOREAUGRAD
    ),
    "sparse-moreaugrad": _method(
        "moreau:SparseMoreauGrad", "MoreauGrad with an L1 penalty: a few entries", MOREAUGRAD
    ),
    "group-sparse-moreaugrad": _method(
        "moreau:GroupSparseMoreauGrad", "MoreauGrad with a group penalty: a few blocks", MOREAUGRAD
    ),
    "moreau": _method("moreau:Moreau", "MoreauGrad with any penalty", MOREAUGRAD),
    "moreaugrad-plain": _method(
        "moreau:MoreauGrad", "MoreauGrad without Gaussian smoothing", MOREAUGRAD, sigma=0.0
    ),
    "sparse-moreaugrad-plain": _method(
        "moreau:SparseMoreauGrad", "Sparse MoreauGrad without Gaussian smoothing", MOREAUGRAD,
        sigma=0.0,
    ),
    "group-sparse-moreaugrad-plain": _method(
        "moreau:GroupSparseMoreauGrad", "group-sparse MoreauGrad without Gaussian smoothing",
        MOREAUGRAD, sigma=0.0,
    ),
    "published-moreaugrad": _method(
        "published:PublishedMoreauGrad", "the paper's algorithm as released, for comparison",
        MOREAUGRAD, sign="gradient",
    ),
}  # fmt: skip

METHODS = Registry(
    "method",
    _ROWS,
    ["moreaugrad.explainers.base:Explainer", "captum.attr:Attribution"],
    group="moreaugrad.methods",
)
"""All methods by name; `METHODS[name].load()` is the class, `.summary` what it is."""


def build(name: str, model: Any, **settings: Any) -> Explainer:
    """The explainer of that name, or of your own `package.module:Class`, on a model.

    >>> result = mg.build("smoothgrad", model, samples=32).explain(x)

    A `penalty` may also be given as text, such as "elastic-net 0.01 0.05".
    Errors: ValueError for an unknown name or setting, and for a value of another type.
    """
    found: Explainer = METHODS.build(name, model, **settings)
    return found
