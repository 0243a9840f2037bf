"""Options to an evaluation, and an evaluation on the screen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from moreaugrad.attacks import ATTACKS
from moreaugrad.cli import screen
from moreaugrad.cli.jobs import (
    ALL,
    Part,
    Settings,
    apply,
    compute_plan,
    method_names,
    method_part,
    model_plan,
    put,
)
from moreaugrad.cli.options import EvaluateOptions
from moreaugrad.cli.values import numbers, target_of, typed
from moreaugrad.metrics import METRICS
from moreaugrad.registry import labelled

if TYPE_CHECKING:
    from moreaugrad.runs.evaluate import EvaluateOutcome, EvaluatePlan

USUAL_METRICS = ("normalised-distance", "top-k", "ssim", "gini", "zeros")
OWN = ("layout", "split", "samples", "seed", "block", "maps", "unreadable")
"""Options that are fields of the plan, by the same name."""
BESIDES = {"attack": None, "epsilons": None, "over": None, "surrogate": None}
"""Settings that every attack has in a plan; see `EvaluatePlan`."""
OF_METRICS = {"metric": None, "score": None}
ATTACK = re.compile(
    r"(?:(?P<label>[\w.+-]+)=)?(?P<name>[\w.]+:[^\W\d]\w*(?!\s*=)|[\w-]+)(?::(?P<settings>.*))?",
    re.DOTALL,
)
BETWEEN = re.compile(r",(?![^\[]*\])")
"""Commas, those within brackets left out."""


def evaluate_plan(options: EvaluateOptions) -> EvaluatePlan:
    """What was given goes before the configuration file, and that before defaults."""
    from moreaugrad.runs.evaluate import EvaluatePlan, read_plan

    if options.config is not None:
        base = read_plan(options.config, trust=options.trust)
    else:
        if options.data is None:
            raise ValueError("--data: expected a folder of pictures, got none")
        if options.methods is None:
            raise ValueError("--methods: expected names, separated by commas, or all; got none")
        base = EvaluatePlan(
            data=str(options.data),
            methods={name: {} for name in method_names(options.methods)},
            metrics={name: {} for name in USUAL_METRICS},
        )
    names = options.methods and method_names(options.methods)
    methods = labelled("method", _chosen(base.methods, names))
    names = options.metrics and _metric_names(options.metrics)
    metrics = labelled("metric", _chosen(base.metrics, names))
    attacks = _chosen(base.attacks, None)
    if options.attack:
        attacks = labelled("attack", dict(map(_attack, options.attack)))
    others = [_attack_part(*item) for item in attacks.items()]
    for name in ("norm", "units"):
        value = getattr(options, name)
        if value is not None:
            put(others, name, value, f"--{name}")
    if options.seed is not None:
        for part in others:
            part.settings["seed"] = options.seed
    judged = [_metric_part(*item) for item in metrics.items()]
    named = [method_part(label, s.get("method", label), s) for label, s in methods.items()]
    apply(options, named, [*others, *judged])
    own = {name: getattr(options, name) for name in OWN}
    return replace(
        base,
        data=base.data if options.data is None else str(options.data),
        target=base.target if options.target is None else target_of(options),
        epsilons=base.epsilons if options.epsilons is None
        else tuple(numbers("epsilons", options.epsilons)),
        model=model_plan(options, base.model),
        compute=compute_plan(options, base.compute),
        methods=methods,
        metrics=metrics,
        attacks=attacks,
        **{name: value for name, value in own.items() if value is not None},
    )  # fmt: skip


def _chosen(known: Mapping[str, Mapping[str, Any]], names: Any) -> Settings:
    """The parts of these names, with the settings that the configuration has for them."""
    return {name: dict(known.get(name, {})) for name in (names or known)}


def _metric_names(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",") if word.strip()]
    if words == [ALL]:
        return [name for name, metric in METRICS.items() if metric.kind not in ("mask", "truth")]
    return [METRICS.check(word) for word in words]


def _attack(text: str) -> tuple[str, dict[str, Any]]:
    """`[LABEL=]NAME[:SETTING=VALUE,...]` as a label and settings."""
    match = ATTACK.fullmatch(text)
    if match is None:
        raise ValueError(f"--attack: expected [LABEL=]NAME[:SETTING=VALUE,...], got {text!r}")
    settings: dict[str, Any] = {}
    for pair in BETWEEN.split(match["settings"] or ""):
        name, separator, value = pair.partition("=")
        if separator:
            settings[name.strip()] = _value(value.strip())
        elif pair.strip():
            raise ValueError(f"--attack {text}: expected SETTING=VALUE after the colon")
    name = ATTACKS.check(match["name"])
    label = match["label"] or name
    return label, settings if label == name else {"attack": name, **settings}


def _value(text: str) -> Any:
    """As `--set` has it, and `[a,b]` as a list of words."""
    found = typed(text)
    if isinstance(found, str) and text.startswith("[") and text.endswith("]"):
        return [typed(word.strip()) for word in text[1:-1].split(",")]
    return found


def _attack_part(label: str, settings: dict[str, Any]) -> Part:
    name = ATTACKS.check(settings.get("attack", label))
    return Part(label, settings, {**ATTACKS[name].defaults(), **BESIDES})


def _metric_part(label: str, settings: dict[str, Any]) -> Part:
    name = METRICS.check(settings.get("metric", label))
    return Part(label, settings, {**METRICS[name].defaults(), **OF_METRICS})


def summary(outcome: EvaluateOutcome) -> None:
    """How far the run is, and what draws it."""
    console = screen.results()
    for note in outcome.notes:
        screen.note(f"note: {note}")
    if outcome.failures:
        unread = sum(not failure.method for failure in outcome.failures)
        lost = len(outcome.failures) - unread
        counts = [f"{unread} images"] * (unread > 0) + [f"{lost} maps"] * (lost > 0)
        screen.note(f"{' and '.join(counts)} left out, see above")
    state = "finished" if outcome.finished == outcome.units else "are finished"
    console.print(f"{outcome.finished} of {outcome.units} units {state} in {outcome.seconds:.0f} s")
    folder = escape(str(outcome.folder))
    console.print(f"Folder: {folder}", soft_wrap=True)
    console.print(f"Draw it: moreaugrad report {folder} --out PAGE_DIR", soft_wrap=True)


def summary_json(outcome: EvaluateOutcome) -> None:
    screen.print_json(
        {
            "folder": str(outcome.folder),
            "complete": outcome.finished == outcome.units and not outcome.failures,
            "interrupted": outcome.interrupted,
            "units": outcome.units,
            "finished": outcome.finished,
            "seconds": round(outcome.seconds, 3),
            "notes": outcome.notes,
            "unreadable": [
                {"sample": failure.title, "message": failure.message}
                for failure in outcome.failures
                if not failure.method
            ],
            "failures": [
                {"sample": failure.title, "method": failure.method, "message": failure.message}
                for failure in outcome.failures
                if failure.method
            ],
        }
    )
