"""Options to a training, and a training on the screen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from typing import TYPE_CHECKING, Any

from rich.markup import escape

from moreaugrad.cli import screen
from moreaugrad.cli.train_options import TrainOptions
from moreaugrad.cli.values import numbers, size, typed

if TYPE_CHECKING:
    from moreaugrad.runs.train import Means, TrainEstimate, TrainOutcome, TrainPlan

OWN = ("epochs", "batch", "shards", "seed", "loss", "amp", "device", "threads", "judged")
OF_DATA = {
    "data": "source", "layout": "layout", "split": "split", "validation": "validation",
    "test": "test", "count": "count", "test_count": "test_count", "data_seed": "seed",
    "unreadable": "unreadable",
}  # fmt: skip
OF_MODEL = {"weights": "weights", "labels": "labels", "from_scratch": "from_scratch"}
OF_PROTOCOL = {"protocol": "name", "penalty": "penalty", "group": "group", "channels": "channels"}
OF_OPTIMISER = {"optimiser": "name", "lr": "lr", "weight_decay": "weight_decay",
                "momentum": "momentum", "schedule": "schedule"}  # fmt: skip
OF_AUGMENT = ("size", "crop", "pad", "flip", "rotate", "blur", "brightness", "contrast",
              "saturation")  # fmt: skip
"""Options by the fields of a plan's parts that they are."""


def train_plan(options: TrainOptions) -> TrainPlan:
    """What was given goes before the configuration file, and that before defaults."""
    from moreaugrad.runs.train import TrainPlan, read_plan

    base = TrainPlan() if options.config is None else read_plan(options.config, trust=options.trust)
    if options.config is None and options.data is None:
        raise ValueError("--data: expected cells, a folder of pictures or a zip of one; got none")
    own = {name: getattr(options, name) for name in OWN}
    protocol = _given(options, base.protocol, OF_PROTOCOL)
    if options.epsilon is not None:
        protocol = replace(protocol, epsilon=tuple(numbers("epsilon", options.epsilon)))
    if options.set:
        protocol = replace(protocol, settings={**protocol.settings, **_settings(options.set)})
    model = base.model.named(options.model, trust=options.trust)
    optimiser = _given(options, base.optimiser, OF_OPTIMISER)
    if options.betas is not None:
        optimiser = replace(optimiser, betas=_pair("betas", options.betas))
    return replace(
        base,
        data=_given(options, base.data, OF_DATA),
        model=_given(options, model, OF_MODEL),
        protocol=protocol,
        optimiser=optimiser,
        augment=_augment(options, base),
        **{name: value for name, value in own.items() if value is not None},
    )


def means(options: TrainOptions) -> Means:
    from moreaugrad.runs.train import Means

    names = [item.name for item in fields(Means)]
    given = {name: getattr(options, name) for name in names}
    return Means(**{name: value for name, value in given.items() if value is not None})


def _given(options: TrainOptions, part: Any, names: dict[str, str]) -> Any:
    """A part of the plan with the options that were given in the place of its fields."""
    found = {theirs: getattr(options, ours) for ours, theirs in names.items()}
    texts = {
        name: value if isinstance(value, (bool, int, float)) else str(value)
        for name, value in found.items()
        if value is not None
    }
    return replace(part, **texts)


def _augment(options: TrainOptions, base: TrainPlan) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in OF_AUGMENT}
    if options.resize is not None:
        given["resize"] = size("resize", options.resize)
    return {**base.augment, **{name: v for name, v in given.items() if v is not None}}


def _pair(name: str, text: str) -> tuple[float, float]:
    found = numbers(name, text)
    if len(found) != 2:
        raise ValueError(f"--{name}: expected two numbers, got {text!r}")
    return found[0], found[1]


def _settings(texts: list[str]) -> dict[str, Any]:
    found = {}
    for text in texts:
        name, separator, value = text.partition("=")
        if not separator or not name:
            raise ValueError(f"--set: expected NAME=VALUE, got {text!r}")
        found[name.strip()] = typed(value.strip())
    return found


def summary(outcome: TrainOutcome) -> None:
    """What the network is worth, and where it is."""
    console = screen.results()
    _tell(outcome.notes)
    for part in ("validation", "test"):
        if part in outcome.results:
            found = outcome.results[part]
            gini = found["gini"]["mean"]
            console.print(
                f"{part}: {100 * found['accuracy']:.1f} % of {found['count']} right"
                + ("" if gini is None else f", Gini {gini:.3f}")
            )
            for name, robust in found["robustness"].items():
                console.print(f"  under {name}: {100 * robust['accuracy']:.1f} %", markup=False)
    count = len(outcome.records)
    console.print(f"{count} epoch{'' if count == 1 else 's'} in {outcome.seconds:.0f} s")
    folder = escape(str(outcome.folder))
    console.print(f"Folder: {folder}, read its card.md", soft_wrap=True)


def _tell(notes: Sequence[str]) -> None:
    for note in notes:
        screen.note(f"note: {note}")


def summary_json(outcome: TrainOutcome) -> None:
    screen.print_json(
        {
            "folder": str(outcome.folder),
            "complete": bool(outcome.results),
            "interrupted": outcome.interrupted,
            "seconds": round(outcome.seconds, 3),
            "notes": outcome.notes,
            "epochs": list(outcome.records),
            "results": outcome.results,
        }
    )


def tell_estimate(found: TrainEstimate, notes: Sequence[str], *, as_json: bool) -> None:
    if as_json:
        screen.print_json({**asdict(found), "seconds": found.seconds, "notes": list(notes)})
        return
    _tell(notes)
    screen.results().print(
        f"{found.batches} batches, {found.updates:g} updates of the weights and {found.passes:g} "
        f"passes in each, {1000 * found.seconds_per_batch:.3g} ms: "
        f"{screen.duration(found.seconds)}, and the judging of each epoch",
        soft_wrap=True,
    )
