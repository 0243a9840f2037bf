"""What the studies of one network are asked for: `certify`, `sanity` and `visualise`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from moreaugrad.runs.plans.common import SEED, ComputePlan, DataPlan, ModelPlan, images_option
from moreaugrad.runs.plans.maps import MapsPlan, batch_size_option, methods_option
from moreaugrad.runs.plans.option import Plan, of_text, option, part, unkept
from moreaugrad.runs.plans.parts import check_pairs, read_methods, read_metrics, with_labels
from moreaugrad.runs.plans.text import Settings, read_settings, words
from moreaugrad.settings import expect

STEPS = (0, 0.001, 0.002, 0.005, 0.01, 0.02, *(step / 20 for step in range(1, 41)))
"""Radii when none are given, in units of sigma; beyond 2 sigma nothing can be certified."""
DRAWS = 8
LEAST = 16 * DRAWS
"""Noise samples: MoreauGrad needs 16 steps of its own."""
MODES = ("cascading", "independent")
PAIRS: Mapping[str, Settings] = {name: {} for name in ("ssim", "spearman", "spearman-signed")}


@dataclass(frozen=True, kw_only=True)
class CertifyPlan(Plan):
    """How much of a map's top stays under any perturbation, for each image; and which pixels of the
    maps of `methods` do, each by itself.

    sigma, radii: fractions of the range of inputs that images can have; with sigma_mode "absolute"
    in the network's input units, after the preprocessing, as which a run keeps them. radii: ()
    chooses them by sigma. rho: of MoreauGrad; None is half of the largest that has a bound,
    1 / (2 lambda) with lambda = 0.484 / sigma^2.
    Clopper-Pearson bounds are for the sparsified variant; the relaxed one then has the automatic
    bound. methods: settings by label, as in `MapsPlan`.
    """

    GROUP: ClassVar[str] = "Certificate"

    data: DataPlan = part(DataPlan)
    target: int | str | None = option(
        None, "Class to explain, by index or label.", "--target", "-t",
        shown="the predicted class",
    )  # fmt: skip
    task: str = option(
        "auto", "How outputs are read as probabilities: auto, multiclass, binary or multilabel."
    )
    seed: int = option(0, "Random seed of the noise and of the choice of images.", within=SEED)
    sigma: float | None = option(
        None, "Standard deviation of the noise, as a fraction of the range of inputs; with "
        "--sigma-mode absolute: in the network's input units.", shown="required",
        within="(0, inf)", clears=("sigma_mode", "radii", "rho"),
    )  # fmt: skip
    sigma_mode: str = option("relative", "Units of --sigma and --radii: relative or absolute.")
    radii: tuple[float, ...] = option(
        (), "L2 lengths of perturbations in the units of --sigma, separated by commas.",
        shown="by sigma", within="[0, inf)",
    )  # fmt: skip
    top: float = option(
        0.1,
        "Fraction of a map's entries whose overlap is certified; and of its pixels that count "
        "as important.",
        within="(0, 1]",
    )
    samples: int = option(
        1024, "Noise samples of each map.", "--noise-samples", within=f"[{LEAST}, inf)"
    )
    statement: str = option(
        "population", "The map at the perturbed input: population (its exact mean) or two-sample "
        "(as many fresh noise samples).",
    )  # fmt: skip
    confidence: float = option(
        0.95,
        "Confidence of each certificate: of an image's curve, or of all pixels of a map.",
        within="(0, 1)",
    )
    bound: str = option("auto", "Bound: auto, hoeffding, clopper-pearson or bernstein.")
    rho: float | None = option(
        None, "rho of MoreauGrad, below 2.07 sigma^2 with sigma in the network's input units.",
        shown="half of that",
    )  # fmt: skip
    sparsity: float = option(0.9, "Fraction of zeros of Sparse MoreauGrad.")
    tau: float = option(0.1, "Fraction of a gradient's entries that Sparsified SmoothGrad counts.")
    gamma: float = option(0.01, "Fraction of them that the relaxed variant counts fully.")
    methods: Mapping[str, Settings] = option(
        {"simple-gradient": {}}, "Names of methods whose pixels are certified, separated by "
        "commas; all; or all,-NAME for all but one.", "--methods", "--method", "-m",
        read=read_methods, shown="simple-gradient",
    )  # fmt: skip
    votes: int = option(
        100, "Noisy inputs, each with a map of each of --methods, which vote on each pixel.",
        within="[1, inf)",
    )  # fmt: skip
    threshold: float = option(
        0.75, "Probability that the votes of a pixel must prove; certified is then the radius "
        "sigma Phi^-1(threshold).", within="[0.5, 1)",
    )  # fmt: skip
    batch_size: int | None = batch_size_option()
    model: ModelPlan = part(ModelPlan)
    compute: ComputePlan = part(ComputePlan)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "methods", with_labels("method", self.methods))


@dataclass(frozen=True, kw_only=True)
class SanityDataPlan(DataPlan):
    """A few images, because each is explained for every randomised copy of the network."""

    images: int | None = images_option(16)


@dataclass(frozen=True, kw_only=True)
class SanityPlan(MapsPlan):
    """Maps of copies of a network with randomised weights, compared with those of the network.

    modes: "cascading" randomises block after block from the output on, "independent" one at a time.
    seeds: of the new weights. blocks: names of modules, the nearest to the output first; () is all
    with weights of their own. metrics: of pairs of maps. calibrate: layers of batch normalisation
    take the statistics of the images after the randomisation.
    """

    GROUP: ClassVar[str] = "Randomisation"

    data: SanityDataPlan = part(SanityDataPlan)
    methods: Mapping[str, Settings] = methods_option("simple-gradient")
    metrics: Mapping[str, Settings] = option(
        PAIRS, "Names of metrics of pairs of maps, separated by commas.", read=read_metrics,
        shown=", ".join(PAIRS),
    )  # fmt: skip
    block: int | None = unkept(None)
    modes: tuple[str, ...] = option(
        MODES,
        "Order of the randomisation: cascading, independent or both.",
        choices=MODES,
        distinct=True,
    )
    seeds: tuple[int, ...] = option(
        (0, 1, 2), "Random seeds of the new weights.", within="[0, inf)", distinct=True
    )
    blocks: tuple[str, ...] = option(
        (), "Modules, the nearest to the output first, separated by commas.",
        shown="all with weights of their own", distinct=True,
    )  # fmt: skip
    calibrate: bool = option(
        False, "Batch normalisation takes the images' statistics after the randomisation."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_pairs([str(own.get("metric", name)) for name, own in self.metrics.items()])
        expect(bool(self.methods), "methods", "at least one", self.methods)


def _classes(_: Any, texts: list[str]) -> tuple[int | str, ...]:
    return tuple(of_text("--classes", word, int | str) for word in words(",".join(texts)))


@dataclass(frozen=True, kw_only=True)
class VisualisePlan(Plan):
    """Images that raise the score of each class.

    classes: indices or labels; () is all. count: images of each, from noise of their own.
    score: which is raised. ascent: settings of `explainers.feature_visualisation.Ascent`.
    The images have the size that the network's preprocessing gives.
    """

    GROUP: ClassVar[str] = "Visualisation"

    classes: tuple[int | str, ...] = option(
        (), "Classes, by index or label, separated by commas.", "--classes", "--target", "-t",
        read=_classes, shown="all",
    )  # fmt: skip
    count: int = option(1, "Number of images of each class.", "--images", within="[1, inf)")
    score: str = option("logit", "The score that is raised: logit, probability, margin, ...")
    seed: int = option(0, "Random seed of the noise that the ascent starts from.")
    batch_size: int | None = batch_size_option()
    ascent: Settings = option(
        {}, "A setting of the gradient ascent: steps, step, normalise, decay, tv, jitter, blur, "
        "every, clip or sigma.", "--set", repeated=True, read=read_settings,
        metavar="NAME=VALUE",
    )  # fmt: skip
    model: ModelPlan = part(ModelPlan)
    compute: ComputePlan = part(ComputePlan)
