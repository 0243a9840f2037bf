"""What `explain`, `compare`, `sweep`, `evaluate` and `report` are asked for."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, ClassVar, Self

from moreaugrad.attacks import ATTACKS
from moreaugrad.attacks.catalogue import CLEAN
from moreaugrad.data.arrays import ARRAY_SUFFIXES, names_arrays
from moreaugrad.data.stacks import names_stack
from moreaugrad.data.texts import TEXT_SUFFIXES, names_texts
from moreaugrad.explainers import METHODS
from moreaugrad.metrics import METRICS
from moreaugrad.runs.plans.arrays import ArrayPlan
from moreaugrad.runs.plans.maps import EXPORTS, LIMITED, METRICS_HELP, StoredMapsPlan, without
from moreaugrad.runs.plans.option import Plan, given_options, option, part
from moreaugrad.runs.plans.parts import ALL, read_attacks, read_metrics
from moreaugrad.runs.plans.text import Settings, seconds
from moreaugrad.runs.plans.texts import ReaderPlan, TextPlan

IMAGES, TEXTS, ARRAYS = "images", "texts", "arrays"
"""Kinds of inputs."""
OF_DATA = "data"
"""As `labels` of the published attack: the data set's classes."""
EXPLAINED: Mapping[str, Settings] = {"gini": {}}
"""Metrics of every map that is explained; with ground truth also how well it is found."""
EVALUATED: Mapping[str, Settings] = {
    name: {} for name in ("normalised-distance", "top-k", "ssim", "gini", "zeros")
}


@dataclass(frozen=True, kw_only=True)
class _StylePlan(Plan):
    """How maps are drawn, see `pictures.Style`."""

    GROUP: ClassVar[str] = "Output"

    percentile: float = option(
        99.0, "Percentile of a map's magnitudes from which on they get the last colour."
    )
    reduction: str = option("abs-sum", "Channels to one magnitude: abs-sum or max-abs.")
    palette: str = option("magma", "Palette of heat maps.")
    signed_palette: str = option("blue-white-orange", "Palette of signed maps.")
    opacity: float = option(0.9, "Opacity of the strongest entries of an overlay.")
    keep: float = option(0.1, "Fraction of the pixels that a masked image keeps.")
    certain: float | None = option(
        None, "Level (0.95, say) at which an overlay fades what is not certain: entries of methods "
        "with noise whose sign or zero may be another one.", shown="fade nothing", within="(0, 1)",
    )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SweepPlan(Plan):
    """One method at several values of a setting, for the first `images` inputs (None: all).

    Without values usual ones are chosen when the run is prepared, for rho, eta and sigma.
    """

    GROUP: ClassVar[str] = "Explanation"

    method: str = option(
        "sparse-moreaugrad",
        "Name of the method.",
        "--method",
        "-m",
        resets=("settings",),
        offers=tuple(METHODS),
    )
    over: str = option(
        "eta", "The numeric setting that changes: rho, eta, sigma or another.",
        resets=("values", "settings"),
    )  # fmt: skip
    values: tuple[float, ...] = option(
        (), "Numbers, separated by commas; 0 is shown as the limit.", shown="usual ones"
    )
    settings: Settings = field(default_factory=dict)
    images: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        METHODS.check(self.method)
        if self.over in self.settings:
            raise ValueError(
                f"{self.over}: expected its values from the sweep alone, got "
                f"{self.settings[self.over]!r} as a fixed setting too: leave one out"
            )
        if list(self.values) != sorted(set(self.values)):
            object.__setattr__(self, "values", tuple(sorted(set(self.values))))
        if self.over in LIMITED and self.values and self.values[0] < 0:
            raise ValueError(f"{self.over}: expected values >= 0, got {self.values[0]:g}")


@dataclass(frozen=True, kw_only=True)
class ComparisonPlan(Plan):
    """A second network, explained on the same inputs. methods: () are those of the first.

    target: None is that of the first, by this network's labels.
    """

    model: ReaderPlan = part(ReaderPlan)
    methods: Mapping[str, Settings] = field(default_factory=dict)
    target: int | str | None = None


def _second(before: ComparisonPlan | None, text: str) -> ComparisonPlan:
    return replace(before or ComparisonPlan(), model=ReaderPlan(name=text))


@dataclass(frozen=True, kw_only=True)
class ExplainPlan(StoredMapsPlan):
    """Images, texts, or series and volumes, x methods as files and one page, and a sweep perhaps.

    interactions: of how many of a map's largest pixels; None computes none.
    export: further formats of each map. page_images: how many inputs the page shows.
    text: of texts alone. compare: another network, to compare with.
    """

    model: ReaderPlan = part(ReaderPlan)
    text: TextPlan | None = None
    metrics: Mapping[str, Settings] = option(
        EXPLAINED, METRICS_HELP, read=read_metrics, shown="gini; with ground truth auroc and "
        "average-precision", offers=(ALL, *METRICS),
    )  # fmt: skip
    interactions: int | None = option(
        None, "Number of each map's largest pixels whose interactions are computed and drawn: "
        "second derivatives of the score between them. Each takes 2 evaluations, with noise 2 for "
        "each noise sample.", group="Explanation", shown="none", within="[2, 64]",
    )  # fmt: skip
    export: tuple[str, ...] = option(
        (), "Further formats of each map: npy, csv; of scans nii, which viewers lay over the scan.",
        group="Output", choices=EXPORTS,
    )  # fmt: skip
    page_images: int = option(
        24, "Number of inputs that the page shows. Up to 32 inputs and 128 maps it is one file; "
        "the images of a larger page are files in index_files/ next to it.", group="Output",
        within="[1, inf)",
    )  # fmt: skip
    time: float | None = option(
        None, "Time limit, such as 30s or 5m: after the previews, the methods of the "
        "MoreauGrad family take as many evaluations as fit.", group="Explanation",
        read=lambda _, text: seconds("--time", text), shown="no limit", within="(0, inf)",
        metavar="TIME",
    )  # fmt: skip
    style: _StylePlan = part(_StylePlan)
    sweep: SweepPlan | None = None
    compare: ComparisonPlan | None = option(
        None, "A second network, named as --model is, explained by the same methods.",
        "--compare-with", group="Model", read=_second, metavar="TEXT",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        files = self.data.files
        found = {
            TEXTS: [*map(repr, self.given_texts), *filter(names_texts, files)],
            ARRAYS: [*filter(self._names_array, files)],
            IMAGES: [n for n in files if not names_texts(n) and not self._names_array(n)],
        }
        found[IMAGES] += [f"--data {self.data.source}"] if self.data.source else []
        given = [kind for kind in (IMAGES, ARRAYS, TEXTS) if found[kind]]
        if len(given) > 1:
            first, second = given[:2]
            raise ValueError(
                f"{first} and {second}: expected one or the other, got {found[first][0]} and "
                f"{found[second][0]}"
            )

    def check_options(self) -> None:
        """Errors: ValueError for options of other inputs than there are."""
        model = self.model if isinstance(self.model, ReaderPlan) else ReaderPlan()
        texts = {} if self.text is None else given_options(self.text)
        if model.tokenizer:
            texts["--tokenizer"] = model.tokenizer
        arrays = {} if model.array is None else given_options(model.array)
        of_texts = f"texts, --text or files that end in {', '.join(TEXT_SUFFIXES)}"
        of_arrays = f"series and volumes, files that end in {', '.join(ARRAY_SUFFIXES)}"
        for kind, given, what in ((TEXTS, texts, of_texts), (ARRAYS, arrays, of_arrays)):
            if given and self.kind != kind:
                option, value = next(iter(given.items()))
                words = option if value is True else f"{option} {value}"
                raise ValueError(f"{words}: is for {what}, and there are none")
        if self.interactions is not None and self.kind != IMAGES:
            raise ValueError(
                f"--interactions {self.interactions}: is for images, got {self.kind}: in Python, "
                "moreaugrad.interactions is for inputs of any shape"
            )

    @cached_property
    def kind(self) -> str:
        """What the inputs are, by their names."""
        if self.given_texts or any(map(names_texts, self.data.files)):
            return TEXTS
        return ARRAYS if any(map(self._names_array, self.data.files)) else IMAGES

    def _names_array(self, file: str) -> bool:
        """A stack is one for a network of arrays, and next to other arrays."""
        if not names_stack(file):
            return names_arrays(file)
        return self.model.array is not None or any(map(names_arrays, self.data.files))

    def taken_by(self, takes_arrays: bool) -> Self:
        """For a network: stacks are images or arrays, as it has them."""
        files = self.data.files
        stacks = bool(files) and self.kind == IMAGES and all(map(names_stack, files))
        return self.with_arrays() if takes_arrays and stacks else self

    def with_arrays(self) -> Self:
        """With networks that take arrays."""
        compare, array = self.compare, self.model.array or ArrayPlan()
        if compare is not None:
            own = replace(compare.model, array=compare.model.array or ArrayPlan())
            compare = replace(compare, model=own)
        return replace(self, model=replace(self.model, array=array), compare=compare)

    @property
    def given_texts(self) -> tuple[str, ...]:
        """Texts that are not in files."""
        return () if self.text is None else self.text.texts

    def with_common(self, name: str, value: Any) -> Self:
        plan, sweep, compare = super().with_common(name, value), self.sweep, self.compare
        if sweep is not None:
            own = without({sweep.method: sweep.settings}, name, value)[sweep.method]
            sweep = replace(sweep, settings=own)
        if compare is not None:
            compare = replace(compare, methods=without(compare.methods, name, value))
        return replace(plan, sweep=sweep, compare=compare)


def swept(plan: ExplainPlan) -> ExplainPlan:
    """A sweep alone, with the settings that a configuration has for its method."""
    sweep = plan.sweep or SweepPlan()
    own = {k: v for k, v in plan.methods.get(sweep.method, {}).items() if k != sweep.over}
    settings = {**own, **sweep.settings}
    return replace(plan, methods={}, compare=None, sweep=replace(sweep, settings=settings))


@dataclass(frozen=True, kw_only=True)
class EvaluatePlan(StoredMapsPlan):
    """images x methods, and each of these under every attack at every budget.

    An attack has, besides the settings of its class: `epsilons` of its own; `over`, the setting
    that these are values of, instead of epsilon (sigma of Gaussian noise); `source`, the label of a
    method that its steps are computed on, or its name, which takes over the noise level of the
    attacked method; `surrogate`, the beta of a softplus network for these steps; `through` may be a
    list, of which each method takes the first that it has.
    `labels = "data"` gives the published attack the data set's classes. `metric` of a matched
    attack or a random search is a label of `metrics`; without it there is one for each of them.
    epsilons: the budgets of the other attacks; norm, units: of all attacks that are not given their
    own. A metric that asks the network has `score`: which one, or "explained" for that of each
    method. maps: for how many images maps are kept; None is all of up to 1000 images, and
    none of more.
    """

    GROUP: ClassVar[str] = "Evaluation"
    PARTS: ClassVar[tuple[str, ...]] = ("methods", "metrics", "attacks")
    DERIVED: ClassVar[tuple[str, ...]] = ("methods", "attacks")

    metrics: Mapping[str, Settings] = option(
        EVALUATED,
        METRICS_HELP,
        read=read_metrics,
        shown=", ".join(EVALUATED),
        offers=(ALL, *METRICS),
    )
    attacks: Mapping[str, Settings] = option(
        {}, "[LABEL=]NAME[:SETTING=VALUE,...]: an attack (matched, which is aimed at each "
        "metric, top-k, gaussian, ...). "
        "Settings besides its own: source=METHOD, surrogate=BETA, epsilons=[...], over=SETTING.",
        "--attack", read=read_attacks, repeated=True, offers=tuple(ATTACKS),
    )  # fmt: skip
    epsilons: tuple[float, ...] = option(
        (), "Budgets of the attacks, separated by commas.", distinct=True
    )
    norm: str | None = option(None, "Norm of the budgets: l2 or linf.", shown="l2")
    units: str | None = option(
        None, "Units of the budgets: input (after the preprocessing) or pixel (0 to 1).",
        shown="input",
    )  # fmt: skip
    maps: int | None = option(
        None, "Number of images whose maps are kept.", shown="all; none of more than 1000 images",
        within="[0, inf)",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if CLEAN in self.attacks:
            raise ValueError(f"attacks: expected another label, {CLEAN!r} is the map without one")
        for label in self.attacks:
            self.budgets(label)

    def following(self, before: Self, changed: Collection[str]) -> Self:
        """Attacks that are not given anew have no longer the norm and units of the run before."""
        plan = super().following(before, changed)
        old = set() if "attacks" in changed else {"norm", "units"} & set(changed)
        every = plan.attacks.items()
        kept = {label: {k: v for k, v in own.items() if k not in old} for label, own in every}
        return replace(plan, attacks=kept)

    def budgets(self, attack: str) -> tuple[float | None, ...]:
        """The epsilons of an attack; (None,) for one that needs none and has none.

        Errors: ValueError where there are none.
        """
        given = self.attacks[attack]
        kind = ATTACKS[str(given.get("attack", attack))]
        found = given.get("epsilons", self.epsilons)
        values = tuple(found) if isinstance(found, (list, tuple)) else (found,)
        if not values and not kind.load().needs_epsilon:
            return (None,)
        if not values or not all(type(v) in (int, float) and v >= 0 for v in values):
            raise ValueError(
                f"epsilons: expected numbers >= 0 for the attack {attack}, got "
                f"{list(values) or 'none'}; give its budgets, for example --epsilons 0.25,0.5"
            )
        return tuple(sorted({float(value) for value in values}))


@dataclass(frozen=True, kw_only=True)
class ReportPlan(Plan):
    """runs: folders of runs of any command. confidence: of the intervals over images. gallery: how
    many images of each run are shown. base: which method each is made of (METHOD=BASE, or BASE for
    all others): the report then has the loss of faithfulness."""

    GROUP: ClassVar[str] = "Report"

    runs: tuple[str, ...] = option((), "Folders of runs, of any command.", "RUN", path=True)
    confidence: float = option(
        0.95, "Confidence of the intervals over images (Student's t).", within="(0, 1)"
    )
    gallery: int = option(
        4, "Number of images whose maps are shown. Those of a page of more than 32 images or 128 "
        "maps are files in index_files/ next to it.", within="[0, inf)",
    )  # fmt: skip
    base: tuple[str, ...] = option(
        (), "[METHOD=]BASE: what a method is made of; the report has the fraction of the base's "
        "AOPC that it loses.", repeated=True,
    )  # fmt: skip
