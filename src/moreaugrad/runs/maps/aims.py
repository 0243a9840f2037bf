"""Which metric of a run each of its attacks is aimed at, and which metrics none is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from moreaugrad.attacks import ATTACKS
from moreaugrad.attacks.catalogue import aim
from moreaugrad.attacks.matched import Matched
from moreaugrad.metrics import METRICS, Metric
from moreaugrad.runs.plans.text import Settings

EACH = "each"
"""As the metric of an attack: one attack for each metric of the run that it can be aimed at."""


def aimed(attacks: Mapping[str, Settings], metrics: Mapping[str, Settings]) -> dict[str, Settings]:
    """The attacks by label, with the metrics that they are aimed at spelt out: `metric` may be the
    label of a metric of the run. One aimed at each is `LABEL-METRIC` for each of them.

    Errors: ValueError where there is none, and for two attacks of one label.
    """
    found: dict[str, Settings] = {}
    for label, given in attacks.items():
        own = _aimed(label, given, metrics)
        if taken := [one for one in own if one in found or (one != label and one in attacks)]:
            raise ValueError(
                f"attack: expected labels of their own, got two attacks {taken[0]!r}: {label} "
                "makes one for each metric; give one of them another label (LABEL=NAME)"
            )
        found |= own
    return found


def _aimed(label: str, given: Settings, metrics: Mapping[str, Settings]) -> dict[str, Settings]:
    """One attack, or those that it stands for, by label."""
    name = ATTACKS.check(str(given.get("attack", label)))
    kind = ATTACKS[name].load()
    if not issubclass(kind, Matched):
        return {label: given}
    own, asked = {"attack": name, **given}, given.get("metric", EACH)
    if asked != EACH:
        known = isinstance(asked, str) and asked in metrics and "measure" not in given
        return {label: {**own, **(_aim(asked, metrics[asked]) if known else {})}}
    fitting = {k: v for k, v in metrics.items() if kind.can_be_aimed_at(_row(k, v))}
    if not fitting:
        names = ", ".join(k for k, row in METRICS.items() if kind.can_be_aimed_at(row))
        raise ValueError(
            f"metrics: expected some that {label} can be aimed at ({names}), got "
            f"{', '.join(metrics) or 'none'}"
        )
    return {f"{label}-{metric}": {**own, **_aim(metric, v)} for metric, v in fitting.items()}


def not_aimed_at(attacks: Mapping[str, Settings], metrics: Mapping[str, Settings]) -> Iterator[str]:
    """A sentence for the metrics of two maps at which no attack is aimed."""
    found = {}
    for label, given in attacks.items():
        name = str(given.get("attack", label))
        at = aim(name, given)
        if at is not None:
            found[label] = at
    missed = [
        label
        for label, given in metrics.items()
        if Matched.can_be_aimed_at(_row(label, given))
        and not any(at.at(str(given.get("metric", label)), given) for at in found.values())
    ]
    if found and missed:
        their, them = ("their", "them") if len(missed) > 1 else ("its", "it")
        yield (
            f"no attack is aimed at {', '.join(missed)}: {their} values under {', '.join(found)} "
            f"do not say how far an attack can change {them}; --attack matched is aimed at each "
            "metric"
        )


def _aim(label: str, given: Settings) -> dict[str, Any]:
    """The settings of an attack that is aimed at that metric."""
    name = str(given.get("metric", label))
    known = METRICS[name].defaults()
    own = {k: v for k, v in given.items() if k in known and v != known[k]}
    return {"metric": name, **({"measure": own} if own else {})}


def _row(label: str, given: Settings) -> Metric:
    return METRICS[str(given.get("metric", label))]
