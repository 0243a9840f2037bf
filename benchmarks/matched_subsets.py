"""Smaller runs of the robustness study: other methods, settings and images under some of its
attacks on the largest entries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from benchmarks import matched_tables as tables
from benchmarks.command import evaluated
from benchmarks.context import Context
from benchmarks.matched import named, weights
from benchmarks.matched_plans import (
    BASE,
    LIMIT,
    NETWORKS,
    OF_FAMILIES,
    USUAL,
    Network,
    Settings,
    lean,
    methods,
    plan,
    shortened,
)
from benchmarks.matched_tables import FEW
from benchmarks.results import Result
from benchmarks.study import PROCESSES
from moreaugrad.reports.reading import MapsFolder
from moreaugrad.runs.plans.explain import EvaluatePlan

SMOOTHED, TRANSFER = f"smoothed-{FEW}", f"transfer-{FEW}"
LOW, DEFAULT, HIGH = 0.05, 0.1, 0.4
"""Noise levels; the second one is MoreauGrad's default."""
OF_SETTINGS = {
    "sigma .05 instead of .2": (f"sparse-moreaugrad-{LOW:g}", BASE),
    "sigma .4 instead of .2": (f"sparse-moreaugrad-{HIGH:g}", BASE),
    "80 % zeros instead of 90 %": (f"{BASE}-zeros-0.8", BASE),
    "99 % zeros instead of 90 %": (f"{BASE}-zeros-0.99", BASE),
    "rho .01 instead of 1": (f"{BASE}-rho-0.01", BASE),
    "automatic rho instead of 1": (f"{BASE}-rho-auto", BASE),
}
OF_NOISE = {
    "the envelope instead of the threshold, sigma .1": (
        f"sparse-moreaugrad-{DEFAULT:g}", f"sparse-smoothgrad-{DEFAULT:g}"
    ),
    "the envelope instead of SmoothGrad, sigma .1": (
        f"sparse-moreaugrad-{DEFAULT:g}", f"smoothgrad-{DEFAULT:g}"
    ),
}  # fmt: skip
Pairs = Mapping[str, tuple[str, str]]


@dataclass(frozen=True, kw_only=True)
class Subset:
    """chosen: the network with what is measured here. given: its methods. attacks: names of the
    study's, () for all. pairs: methods that are compared image by image. seed: of the images and
    the noise, the study's by default. note: what a reader of the tables has to know."""

    title: str
    note: str
    chosen: Callable[[Network], Network] = lambda network: network
    given: Callable[[Network], Settings] = methods
    attacks: tuple[str, ...] = ()
    pairs: Pairs = field(default_factory=dict)
    seed: int = 0

    def plan(self, network: Network) -> EvaluatePlan:
        own = replace(self.chosen(network), metrics=(FEW,))
        whole = shortened(plan(own, self.given(own)))
        kept = {k: v for k, v in whole.attacks.items() if not self.attacks or k in self.attacks}
        return replace(whole, attacks=kept, seed=self.seed)


def run(context: Context, kind: str, network: str) -> Result:
    subset = SUBSETS[kind]
    own = lean(NETWORKS[network]) if context.quick else NETWORKS[network]
    asked = subset.plan(replace(own, weights=weights(context, own)))
    folder = context.cache.folder / f"{kind}-{network}{'-quick' if context.quick else ''}"
    run = MapsFolder.read(evaluated(asked, folder, processes=PROCESSES), network)
    measured = tables.measured(run)
    found = tables.compared(measured)
    return Result(
        title=f"{subset.title}: {network}",
        settings={"plan": named(asked)},
        figures={"complete": run.complete, "values": found},
        tables=[
            tables.means(found),
            *([tables.differences(found, subset.pairs)] if subset.pairs else []),
            tables.errors(measured),
            *([tables.strongest(measured)] if len(asked.attacks) > 1 else []),
        ],
        notes=[
            (
                f"Means over images with 95 % intervals (Student's t). {subset.note} Attacks with "
                f"noise follow {own.draws} noise samples in a step."
            )
        ],
    )  # fmt: skip


def _settings(network: Network) -> Network:
    """An automatic rho alone takes 400 evaluations, too many for photos."""
    photos = network.source == NETWORKS["squeezenet"].source
    varied = [each for each, _ in OF_SETTINGS.values() if not (photos and each.endswith("auto"))]
    return replace(
        network, smoothed=(), thresholded=(), solved=(LOW, USUAL, HIGH), others=tuple(varied)
    )


def _equal_noise(network: Network) -> Network:
    """Twice as many images, because differences of AOPC are small; another seed draws them, because
    the study's own suggested the question."""
    levels = (DEFAULT,)
    return replace(
        network, images=2 * network.images, smoothed=levels, thresholded=levels, solved=levels,
        others=("simple-gradient",),
    )  # fmt: skip


def _many(network: Network) -> Settings:
    """Sparse MoreauGrad at the study's equal error, and as many gradients for the others as that
    took on ResNet-20."""
    sampled = {"sigma": USUAL, "samples": 640}
    return {
        "smoothgrad": sampled,
        "sparse-smoothgrad": sampled,
        "sparse-moreaugrad": {
            "sigma": USUAL, "tolerance": network.error, "max_evaluations": LIMIT
        },
    }  # fmt: skip


def _baselines(network: Network) -> Settings:
    """About as many evaluations for each as the study's maps have."""
    return {
        "integrated-gradients": {"steps": network.evaluations},
        "deeplift": {},
        "relex": {"steps": network.evaluations // 3, "draws": 2},
        "caso": {},
    }


def _released(network: Network) -> Settings:
    """The paper's algorithm as released, 9600 evaluations, with the penalties of its figures; with
    as many and with few evaluations what it is compared with."""
    released = {"method": "published-moreaugrad", "sign": "gradient"}
    smoothed, few = {"method": "smoothgrad", "sigma": DEFAULT}, network.evaluations
    return {
        "released-sparse": {**released, "eta": 0.005},
        "released-group-sparse": {**released, "eta": 0.05, "group": 2},
        "released-vanilla": {**released, "eta": 0.0},
        "smoothgrad-9600": {**smoothed, "samples": 9600},
        "smoothgrad": {**smoothed, "samples": few},
        "moreaugrad": {"sigma": DEFAULT, "max_evaluations": few},
        "sparse-moreaugrad": {"sigma": DEFAULT, "max_evaluations": few},
        "simple-gradient": {},
    }


SUBSETS = {
    "settings": Subset(
        title="Settings of Sparse MoreauGrad",
        note="One attack with SmoothGrad's steps at the method's sigma, the strongest one at sigma "
        ".2 on most networks: more is left than under the worst of several, above all with little "
        "noise.",
        chosen=_settings, attacks=(SMOOTHED,), pairs=OF_SETTINGS,
    ),
    "equal-noise": Subset(
        title="Sparse maps at sigma .1",
        note="Images that the study's seed did not draw, but for chance. One attack with "
        "SmoothGrad's steps at the same sigma, aimed at each map's own largest entries.",
        chosen=_equal_noise, attacks=(SMOOTHED,), pairs=OF_NOISE, seed=1,
    ),
    "many-gradients": Subset(
        title="About 640 gradients for each map",
        note="The worst of the study's attacks.",
        given=_many, pairs=OF_FAMILIES,
    ),
    "baselines": Subset(
        title="The paper's other baselines under matched attacks",
        note="The worst of the study's attacks, those that suit the method. RelEx and DeepLIFT "
        "have no derivative: their steps are other methods', and a search.",
        given=_baselines,
    ),
    "released": Subset(
        title="The paper's algorithm as released, under matched attacks",
        note="The worse of two attacks, by the steps of SmoothGrad at the same sigma and by the "
        "simple gradient's: the released algorithm has no derivative.",
        chosen=lambda network: replace(network, images=min(10, network.images)),
        given=_released, attacks=(SMOOTHED, TRANSFER),
    ),
}  # fmt: skip
