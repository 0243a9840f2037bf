"""Options to a job. What was given goes before the configuration file, and that before defaults."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from moreaugrad.cli.options import CertifyOptions, Common, MethodOptions, Options
from moreaugrad.cli.values import batch_size, numbers, size, target_of, typed
from moreaugrad.explainers import METHODS
from moreaugrad.registry import choose, labelled, nearest

if TYPE_CHECKING:
    from moreaugrad.models import PreprocessPlan
    from moreaugrad.runs import ComputePlan, Job, ModelPlan
    from moreaugrad.runs.certify import CertifyPlan

SHARED = (
    "score", "task", "layer", "rho", "eta", "sparsity", "sigma", "group", "tolerance",
    "max_evaluations", "seed", "batch_size", "check",
)  # fmt: skip
"""Options that are settings of methods, by the same name."""

CERTIFIED = (
    "sigma", "top", "samples", "statement", "confidence", "bound", "rho", "sparsity", "tau",
    "gamma", "seed",
)  # fmt: skip
"""Options that are settings of a certificate, by the same name."""

Settings = dict[str, dict[str, Any]]
ALL = "all"


def method_names(text: str) -> list[str]:
    """`a,b`, `all`, or `all,-a` for all but a. Errors: ValueError with the nearest name."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    chosen: dict[str, None] = {}
    for word in words:
        if word == ALL:
            chosen |= dict.fromkeys(METHODS)
        elif word.startswith("-"):
            chosen.pop(METHODS.check(word[1:]), None)
        else:
            chosen[METHODS.check(word, also=(ALL,))] = None
    if not chosen:
        raise ValueError(f"methods: expected names, separated by commas, or {ALL}; got {text!r}")
    return list(chosen)


def explain_job(
    images: Sequence[str],
    methods: Sequence[str] | None,
    options: Options,
    beside: str | None = None,
) -> Job:
    """images x methods. methods None: those of the configuration. beside: a second network."""
    from moreaugrad.runs import BesidePlan, Job, ModelPlan, read_job

    if options.config is not None:
        base = read_job(options.config, trust=options.trust)
        images = images or base.images
        cells = None if images else base.cells
        chosen: Settings = {
            name: dict(base.methods.get(name, {})) for name in methods or base.methods
        }
        sweep = None if methods else base.sweep
        base = replace(base, images=tuple(images), cells=cells, methods=chosen, sweep=sweep)
    else:
        _need_images(images)
        chosen = {name: {} for name in methods or ()}
        base = Job(images=tuple(images), methods=chosen)
    plan = base.beside
    if beside is not None:
        model = ModelPlan(name=beside, trust=options.trust)
        plan = BesidePlan(model=model, methods=plan.methods if plan else chosen)
    known = plan.methods if plan else {}
    names = known if methods is None else methods
    others: Settings = {name: dict(known.get(name, {})) for name in names} if plan else {}
    chosen, others = labelled("method", chosen), labelled("method", others)
    swept = {} if base.sweep is None else {base.sweep.method: dict(base.sweep.settings)}
    parts = [
        method_part(n, s.get("method", n), s)
        for part in (chosen, swept, others)
        for n, s in part.items()
    ]
    apply(options, parts)
    sweep = base.sweep and replace(base.sweep, settings=swept[base.sweep.method])
    plan = plan and replace(plan, methods=others)
    return _common(replace(base, methods=chosen, sweep=sweep, beside=plan), options)


def sweep_job(
    images: Sequence[str], method: str, over: str, values: Sequence[float], options: Options
) -> Job:
    """One method at several values of a setting."""
    from moreaugrad.runs import Job, SweepPlan, read_job

    METHODS.check(method)
    settings: Settings = {method: {}}
    apply(options, [method_part(method, method, settings[method])])
    if options.config is None:
        _need_images(images)
        base = None
    else:
        base = read_job(options.config, trust=options.trust)
        settings[method] = {
            **{k: v for k, v in base.methods.get(method, {}).items() if k != over},
            **settings[method],
        }
    plan = SweepPlan(method=method, over=over, values=tuple(values), settings=settings[method])
    if base is None:
        return _common(Job(images=tuple(images), sweep=plan), options)
    cells = None if images else base.cells
    job = replace(
        base, images=tuple(images) or base.images, cells=cells, methods={}, sweep=plan, beside=None
    )
    return _common(job, options)


def _need_images(images: Sequence[str]) -> None:
    if not images:
        raise ValueError("expected pictures to explain: files, folders or globs; got none")


def _common(job: Job, options: Options) -> Job:
    """With the options that are the same for all methods."""
    beside = job.beside
    if beside is not None and options.target is not None:
        beside = replace(beside, target=None)
    return replace(
        job,
        beside=beside,
        target=job.target if options.target is None else target_of(options),
        model=model_plan(options, job.model),
        compute=compute_plan(options, job.compute),
        export=job.export if options.export is None else tuple(options.export),
        page_images=options.page_images or job.page_images,
    )


def certify_plan(images: Sequence[str], options: CertifyOptions) -> CertifyPlan:
    """What to certify of these pictures."""
    from moreaugrad.runs import ComputePlan, ModelPlan
    from moreaugrad.runs.certify import CertifyPlan

    _need_images(images)
    if options.sigma is None:
        raise ValueError(
            "--sigma: expected the noise's standard deviation in the network's input units (after "
            "the preprocessing), such as 0.5; got none"
        )
    given = {name: getattr(options, name) for name in CERTIFIED}
    chosen = {name: value for name, value in given.items() if value is not None}
    if options.radii is not None:
        chosen["radii"] = tuple(numbers("radii", options.radii))
    chosen["batch_size"] = batch_size(options)
    return CertifyPlan(
        images=tuple(images),
        target=target_of(options),
        model=model_plan(options, ModelPlan()),
        compute=compute_plan(options, ComputePlan()),
        **chosen,
    )


def model_plan(options: Common, before: ModelPlan) -> ModelPlan:
    names = {"weights": "weights", "labels": "labels"}
    named = before.named(options.model, trust=options.trust)
    found: ModelPlan = _given(options, named, names)
    return replace(found, preprocess=_preprocess(options, before.preprocess))


def compute_plan(options: Common, before: ComputePlan) -> ComputePlan:
    names = ("device", "dtype", "threads", "channels_last", "fold_batchnorm")
    found: ComputePlan = _given(options, before, {name: name for name in names})
    return found


def _given(options: Common, plan: Any, names: Mapping[str, str]) -> Any:
    """A part of a job with the options that were given in the place of its fields."""
    found = {ours: getattr(options, name) for name, ours in names.items()}
    texts = {
        name: str(value) if name in ("weights", "labels") else value
        for name, value in found.items()
        if value is not None
    }
    return replace(plan, **texts)


def _preprocess(options: Common, before: PreprocessPlan | None) -> PreprocessPlan | None:
    from moreaugrad.models import PreprocessPlan

    names = ("resize", "crop", "mean", "std")
    given: dict[str, Any] = {}
    for name in names:
        text = getattr(options, name)
        if text is not None:
            sized = name in ("resize", "crop")
            given[name] = size(name, text) if sized else tuple(numbers(name, text))
    if options.interpolation is not None:
        given["interpolation"] = options.interpolation
    if not given:
        return before
    return replace(before or PreprocessPlan(), **given)


@dataclass(frozen=True)
class Part:
    """A method, an attack or a metric whose settings are filled in. fixed: what makes it itself."""

    label: str
    settings: dict[str, Any]
    defaults: Mapping[str, Any]
    fixed: Mapping[str, Any] = field(default_factory=dict)


def method_part(label: str, name: str, settings: dict[str, Any]) -> Part:
    return Part(label, settings, METHODS[name].defaults(), METHODS[name].settings)


def apply(options: MethodOptions, methods: Sequence[Part], others: Sequence[Part] = ()) -> None:
    """Puts the options that are settings into each method that has them.

    A setting that makes the method what it is (sigma = 0 of a plain one) stays. `--set` reaches the
    other parts too. Errors: ValueError for a setting that no chosen part has.
    """
    for name in SHARED:
        value = batch_size(options) if name == "batch_size" else getattr(options, name)
        if value is not None:
            given = typed(value) if isinstance(value, str) else value
            put(methods, name, given, f"--{name.replace('_', '-')}")
    parts = [*methods, *others]
    for text in options.set or ():
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise ValueError(f"--set: expected NAME=VALUE or METHOD.NAME=VALUE, got {text!r}")
        label, dot, setting = name.rpartition(".")
        if dot:
            what = "part" if others else "method"
            choose(f"--set: one of the chosen {what}s", label, [part.label for part in parts])
            some = [part for part in parts if part.label == label]
            put(some, setting, typed(value), f"--set {name}")
        else:
            put(methods, name, typed(value), f"--set {name}")


def put(parts: Sequence[Part], name: str, value: Any, option: str) -> None:
    """Errors: ValueError where none of the parts has the setting, or takes another value."""
    taken, known, fixed = False, set[str](), []
    for part in parts:
        known |= set(part.defaults)
        if name in part.fixed:
            fixed.append(f"{part.label} has {name} = {part.fixed[name]}")
        elif name in part.defaults:
            part.settings[name] = value
            taken = True
    if not taken and fixed:
        raise ValueError(f"{option}: cannot be changed, {fixed[0]}: choose another method")
    if not taken:
        labels = list(dict.fromkeys(part.label for part in parts))
        raise ValueError(
            f"{option}: {', '.join(labels)} {'has' if len(labels) == 1 else 'have'} no setting "
            f"{name!r}{nearest(name, known)} (see: moreaugrad methods)"
        )
