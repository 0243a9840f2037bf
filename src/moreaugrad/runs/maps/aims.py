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

    Errors: ValueError where there is none.
    """
    found: dict[str, Settings] = {}
    for label, given in attacks.items():
        name = ATTACKS.check(str(given.get("attack", label)))
        kind = ATTACKS[name].load()
        if not issubclass(kind, Matched):
            found[label] = given
            continue
        own, asked = {"attack": name, **given}, given.get("metric", EACH)
        if asked != EACH:
            spelt_out = asked in metrics and "measure" not in given
            found[label] = {**own, **(_aim(str(asked), metrics[asked]) if spelt_out else {})}
            continue
        fitting = {k: v for k, v in metrics.items() if kind.can_be_aimed_at(_row(k, v))}
        if not fitting:
            known = ", ".join(k for k, row in METRICS.items() if kind.can_be_aimed_at(row))
            raise ValueError(
                f"metrics: expected some that {label} can be aimed at ({known}), got "
                f"{', '.join(metrics) or 'none'}"
            )
        found |= {f"{label}-{metric}": {**own, **_aim(metric, v)} for metric, v in fitting.items()}
    return found


def not_aimed_at(attacks: Mapping[str, Settings], metrics: Mapping[str, Settings]) -> Iterator[str]:
    """A sentence for the metrics of two maps that attacks change by chance alone."""
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
        several = len(missed) > 1
        yield (
            f"no attack is aimed at {', '.join(missed)}: {'their' if several else 'its'} values "
            f"under {', '.join(found)} say how far that changes {'them' if several else 'it'}, not "
            "how far an attack can; --attack matched is aimed at each metric"
        )


def _aim(label: str, given: Settings) -> dict[str, Any]:
    """The settings of an attack that is aimed at that metric."""
    name = str(given.get("metric", label))
    known = METRICS[name].defaults()
    own = {k: v for k, v in given.items() if k in known and v != known[k]}
    return {"metric": name, **({"measure": own} if own else {})}


def _row(label: str, given: Settings) -> Metric:
    return METRICS[str(given.get("metric", label))]
