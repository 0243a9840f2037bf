"""Which networks, methods, attacks and metrics the robustness study measures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.cifar_resnet import SMOOTH_WEIGHTS
from benchmarks.matched_tables import AOPC, FEW
from benchmarks.study import PROCESSES
from benchmarks.subjects import data_folder
from moreaugrad.runs.plans.common import DataPlan, ModelPlan
from moreaugrad.runs.plans.explain import EvaluatePlan

USUAL = 0.2
"""The level at which other settings are varied, and at which errors are made equal."""
SURROGATE = 30.0
"""beta of the softplus network on which steps are computed for a network with kinks."""
LIMIT = 4096
"""Most evaluations of a map at equal error."""
PILOT = 8
"""Images on which samples for equal error are chosen; those that are measured too are left out."""
STEPS = 2
"""Of the attack by the exact derivative. On softplus ResNet-20 more noise samples in a step were
worth more than more steps."""
QUESTIONS = {
    "zeros, by the envelope": ("sparse-moreaugrad-0.2", "smoothgrad-0.2"),
    "zeros, by a threshold": ("sparse-smoothgrad-0.2", "smoothgrad-0.2"),
    "the envelope instead of the threshold": ("sparse-moreaugrad-0.2", "sparse-smoothgrad-0.2"),
    "the envelope instead of the threshold, sigma .1": (
        "sparse-moreaugrad-0.1", "sparse-smoothgrad-0.1"
    ),
    "the probability instead of the logit": (
        "sparse-moreaugrad-0.2-probability-rho-auto", "sparse-moreaugrad-0.2"
    ),
    "sigma .2 instead of .1": ("sparse-moreaugrad-0.2", "sparse-moreaugrad-0.1"),
    "sigma .2 instead of .15, SmoothGrad": ("smoothgrad-0.2", "smoothgrad-0.15"),
    "groups instead of entries": ("group-sparse-moreaugrad", "sparse-moreaugrad-0.2"),
    "Sparsified SmoothGrad instead of SmoothGrad": ("sparsified-smoothgrad", "smoothgrad-0.2"),
    "SmoothGrad instead of the gradient": ("smoothgrad-0.2", "simple-gradient"),
}  # fmt: skip
"""Pairs of methods that are compared image by image, where a network has both."""
OF_FAMILIES = {
    "the envelope instead of the threshold": ("sparse-moreaugrad", "sparse-smoothgrad"),
    "the envelope instead of SmoothGrad": ("sparse-moreaugrad", "smoothgrad"),
}
"""Pairs at equal error, and from many gradients."""
BASE = f"sparse-moreaugrad-{USUAL:g}"
PROBABILITY = f"{BASE}-probability-rho-auto"
OTHERS = (
    "simple-gradient", "sparse-gradient", "cafo", "sparsified-smoothgrad",
    "group-sparse-moreaugrad", PROBABILITY,
)  # fmt: skip
"""Methods without noise, or at one noise level."""
Settings = dict[str, dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Network:
    """kinks: whether its logits have no second derivative. epsilon: L2, in pixels of [0, 1]. size:
    of the regions that faithfulness replaces. advgrad: trained with sparse gradients first.

    evaluations: of each map of a method with noise. draws: noise samples of the map in a step of
    the attack on the largest entries; a quarter of them for other metrics and in a search.
    metrics: those with attacks. error: the relative one that is the same for all methods in the
    second run; equal: of which methods, () for no such run; stein: whether Stein's identity is
    tried there. smoothed, thresholded, solved:
    noise levels of SmoothGrad, thresholded SmoothGrad and Sparse MoreauGrad. others: which other
    methods and settings there are.
    """

    name: str
    weights: str | None
    source: str
    kinks: bool
    images: int = 50
    epsilon: float = 0.5
    size: int = 4
    advgrad: str = ""
    evaluations: int = 64
    draws: int = 32
    metrics: tuple[str, ...] = (FEW, "ssim")
    error: float = 0.25
    stein: bool = True
    smoothed: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2, 0.4)
    thresholded: tuple[float, ...] = (0.1, 0.15, 0.2, 0.4)
    solved: tuple[float, ...] = (0.05, 0.1, 0.2, 0.4)
    others: tuple[str, ...] = OTHERS
    equal: tuple[str, ...] = (
        "smoothgrad", "sparse-smoothgrad", "sparse-moreaugrad", "group-sparse-moreaugrad",
    )  # fmt: skip


def _cifar(name: str, weights: str | None = None, **more: Any) -> Network:
    return Network(name=name, weights=weights, source="cifar10-jpeg.zip", **more)


PAIR = ("smoothgrad", "sparse-moreaugrad")
KINKED: dict[str, Any] = {
    "kinks": True, "draws": 16, "thresholded": (0.1, USUAL, 0.4), "error": 0.4, "equal": PAIR,
}  # fmt: skip
DEEP: dict[str, Any] = {
    "draws": 16, "smoothed": (0.15, 0.2, 0.4), "thresholded": (USUAL,), "solved": (0.1, 0.2, 0.4),
    "others": ("simple-gradient", "cafo", "group-sparse-moreaugrad", PROBABILITY),
    "equal": PAIR,
}  # fmt: skip
DEEPEST: dict[str, Any] = DEEP | {
    "smoothed": (USUAL, 0.4), "others": ("simple-gradient", "cafo", PROBABILITY), "error": 0.5,
    "evaluations": 40, "draws": 8, "metrics": (FEW,), "stein": False,
}  # fmt: skip


def _photos(name: str, weights: str | None = None) -> Network:
    """A budget of the same length for each entry as on CIFAR-10. An automatic rho would take 400
    evaluations for each map. Stated errors are about equal at equal evaluations."""
    return Network(
        name=name, weights=weights, source="imagenet-sample", kinks=True, images=20,
        epsilon=0.5 * 224 / 32, size=16, evaluations=40, draws=4, metrics=(FEW,),
        smoothed=(0.15, USUAL, 0.4), thresholded=(USUAL,), solved=(0.1, USUAL),
        others=("simple-gradient",), equal=(),
    )  # fmt: skip


NETWORKS = {
    "resnet20-softplus": _cifar(
        "benchmarks.cifar_resnet:resnet20_softplus", str(SMOOTH_WEIGHTS), kinks=False
    ),
    "resnet20": _cifar(
        "benchmarks.cifar_resnet:resnet20", "resnet20-cifar10.safetensors", **KINKED
    ),
    "resnet56": _cifar(
        "benchmarks.cifar_resnet:resnet56", "resnet56-cifar10.safetensors", kinks=True, **DEEPEST
    ),
    "vit-gelu": _cifar("vit_cifar10:gelu", kinks=False, **DEEP),
    "vit-relu": _cifar("vit_cifar10:relu", kinks=True, **DEEP | {"error": 0.4}),
    "resnet20-advgrad": _cifar(
        "benchmarks.cifar_resnet:resnet20", advgrad="L1", kinks=True, **DEEP | {"error": 0.4}
    ),
    "squeezenet": _photos("torchvision:squeezenet1_0", "squeezenet1_0-imagenet.safetensors"),
    "mobilenetv2": replace(_photos("mobilenetv2:imagenet"), smoothed=(USUAL, 0.4), evaluations=34),
}
"""Minutes of two cores (AVX-512) for a whole plan: mobilenetv2 50, resnet56 32, vit-gelu 33,
resnet20-advgrad 29 after its training, resnet20-softplus 52 of processor time; next to other work
vit-relu 45, resnet20 35, squeezenet 49.
"""


def lean(network: Network) -> Network:
    """To try the code: what it finds means nothing."""
    return replace(
        network, images=4 if network.source.endswith(".zip") else 2, evaluations=34,
        draws=8, error=0.5, smoothed=(USUAL,), thresholded=(USUAL,), solved=(USUAL,),
        others=("simple-gradient",), equal=PAIR,
    )  # fmt: skip


def methods(network: Network) -> Settings:
    """Every method at its default, those with noise at each level, and Sparse MoreauGrad over rho,
    sparsity and the score."""
    sampled = {"samples": network.evaluations}
    solved = {"max_evaluations": network.evaluations, "tolerance": 0.25}
    thresholds = "sparse-smoothgrad"
    sparse = {"method": "sparse-moreaugrad", **solved}
    others: Settings = {
        "simple-gradient": {},
        "sparse-gradient": {},
        "cafo": {},
        "sparsified-smoothgrad": {"sigma": USUAL, **sampled},
        "group-sparse-moreaugrad": {"sigma": USUAL, **solved},
        f"{BASE}-zeros-0.8": {"sigma": USUAL, "sparsity": 0.8, **sparse},
        f"{BASE}-zeros-0.99": {"sigma": USUAL, "sparsity": 0.99, **sparse},
        f"{BASE}-rho-0.01": {"sigma": USUAL, "rho": 0.01, **sparse},
        f"{BASE}-rho-auto": {"sigma": USUAL, "rho": "auto", **sparse},
        PROBABILITY: {
            "sigma": USUAL, "rho": "auto", "score": "probability", **sparse
        },
    }  # fmt: skip
    return {
        **{k: v for k, v in others.items() if k in network.others},
        **{
            f"smoothgrad-{s:g}": {"method": "smoothgrad", "sigma": s, **sampled}
            for s in network.smoothed
        },
        **{
            f"{thresholds}-{s:g}": {"method": thresholds, "sigma": s, **sampled}
            for s in network.thresholded
        },
        **{f"sparse-moreaugrad-{s:g}": {"sigma": s, **sparse} for s in network.solved},
    }


def equal_error_methods(network: Network, samples: Mapping[str, int]) -> Settings:
    """samples: of the methods without a tolerance."""
    return {
        name: {"sigma": USUAL, "samples": samples[name]} if name in samples
        else {"sigma": USUAL, "tolerance": network.error, "max_evaluations": LIMIT}
        for name in network.equal
    }  # fmt: skip


def families(given: Mapping[str, Mapping[str, Any]]) -> dict[str, list[str]]:
    """Labels by the name of their method."""
    found: dict[str, list[str]] = {}
    for label, own in given.items():
        found.setdefault(str(own.get("method", label)), []).append(label)
    return found


def attacks(network: Network, at_equal_error: bool = False) -> Settings:
    """The exact derivative where a method has one, a transfer of the gradient's steps and one of
    SmoothGrad's at the same noise level, and a search; at equal error those on the largest entries
    alone, and Stein's identity. In a trial SmoothGrad's steps did more to maps of Sparse MoreauGrad
    than its own.

    A network with kinks is attacked by the same method on its surrogate, which costs most; on SSIM
    by the transfer alone. In trials of four images with few noise samples that was the stronger one
    on SSIM in seven of eight methods of two smooth networks."""
    smooth = {"surrogate": SURROGATE, "measured": False} if network.kinks else {}
    exact = {"attack": "matched", "steps": STEPS, **smooth}
    transfer = {
        "attack": "matched", "source": "simple-gradient", "measured": False, "steps": 6, **smooth
    }  # fmt: skip
    smoothed = {**exact, "source": "smoothgrad", "measured": False}
    few, fewer = {"metric": FEW}, max(2, network.draws // 4)
    most = {
        f"exact-{FEW}": {**exact, **few, "draws": network.draws},
        f"smoothed-{FEW}": {**smoothed, **few, "draws": network.draws},
        f"transfer-{FEW}": {**transfer, **few},
    }
    if at_equal_error:
        stein = {"attack": "matched", "through": "stein", "steps": STEPS, **few}
        tried = {f"stein-{FEW}": {**stein, "draws": 2 * network.draws}} if network.stein else {}
        return most | tried
    others: Settings = {}
    for name in network.metrics[1:]:
        if not network.kinks:
            others[f"exact-{name}"] = {**exact, "metric": name, "draws": fewer}
        others[f"transfer-{name}"] = {**transfer, "metric": name}
    search = {"attack": "random-search", "steps": 4, "draws": fewer, **few}
    return {**most, **others, f"search-{FEW}": search}


def metrics(network: Network) -> Settings:
    replaced = {"size": network.size, "steps": 20, "draws": 5}
    curves = {"size": network.size, "steps": 16, "draws": 2}
    return {
        FEW: {"metric": "top-k", "ratio": 0.04, "nonzero": False},
        **{name: {} for name in network.metrics[1:]},
        "gini": {}, "zeros": {}, AOPC: replaced, "insertion": curves, "deletion": curves,
    }  # fmt: skip


def plan(network: Network, given: Settings, at_equal_error: bool = False) -> EvaluatePlan:
    # One block for each process: its passes are full, and both have the same work.
    found = EvaluatePlan(
        data=_data(network, images=network.images),
        model=ModelPlan(name=network.name, weights=network.weights),
        methods=given, metrics=metrics(network),
        attacks=attacks(network, at_equal_error), epsilons=(network.epsilon,),
        units="pixel", block=-(-network.images // PROCESSES), maps=4,
    )  # fmt: skip
    return shortened(found) if at_equal_error else found


def shortened(whole: EvaluatePlan) -> EvaluatePlan:
    """With the metrics alone that every table has, and without maps."""
    return replace(
        whole, metrics={name: whole.metrics[name] for name in (FEW, "zeros", AOPC)}, maps=0
    )


def pilot(network: Network) -> EvaluatePlan:
    """Methods without a tolerance on a few images that another seed chooses."""
    sampled = {"sigma": USUAL, "samples": network.evaluations}
    names = [name for name in network.equal if name.endswith("smoothgrad")]
    return EvaluatePlan(
        data=_data(network, images=PILOT), seed=1,
        model=ModelPlan(name=network.name, weights=network.weights),
        methods=dict.fromkeys(names, sampled), metrics={"zeros": {}}, maps=0,
    )  # fmt: skip


def _data(network: Network, **which: Any) -> DataPlan:
    return DataPlan(
        source=str(data_folder() / network.source),
        split="test" if network.source.endswith(".zip") else None, **which,
    )  # fmt: skip
