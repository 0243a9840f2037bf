"""Methods, metrics and attacks as they are named on the command line and in configurations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from moreaugrad.attacks import ATTACKS
from moreaugrad.explainers import METHODS
from moreaugrad.metrics import METRICS
from moreaugrad.registry import Registry, choose, labelled
from moreaugrad.runs.plans.text import Settings, setting, words

ALL = "all"
LABEL = re.compile(r"[\w+-][\w.+-]*")
"""Of a method, an attack or a metric: it names files and columns."""
ATTACK = re.compile(
    r"(?:(?P<label>[\w.+-]+)=)?(?P<name>[\w.]+:[^\W\d]\w*(?!\s*=)|[\w-]+)(?::(?P<settings>.*))?",
    re.DOTALL,
)
BETWEEN = re.compile(r",(?![^\[]*\])")
"""Commas, those within brackets left out."""


def chosen_names(
    registry: Registry[Any], given: str | list[str], every: Iterable[str] | None = None
) -> list[str]:
    """`a,b`, `all`, or `all,-a` for all but a. every: what all stands for, where that is not the
    whole registry. Errors: ValueError with the nearest name."""
    found: dict[str, None] = {}
    text = given if isinstance(given, str) else ",".join(given)
    for word in words(text):
        if word == ALL:
            found |= dict.fromkeys(registry if every is None else every)
        elif word.startswith("-"):
            found.pop(registry.check(word[1:]), None)
        else:
            found[registry.check(word, also=[ALL])] = None
    if not found:
        raise ValueError(
            f"{registry.part}s: expected names, separated by commas, or {ALL}; got {text!r}"
        )
    return list(found)


def read_parts(
    registry: Registry[Any], before: Mapping[str, Settings], names: Iterable[str]
) -> dict[str, Settings]:
    """Parts by label, with the settings that they have in the configuration."""
    found = labelled(registry.part, {name: {} for name in names})
    return {label: {**before.get(label, {}), **own} for label, own in found.items()}


def with_labels(part: str, settings: Mapping[str, Settings]) -> dict[str, Settings]:
    """Settings by labels that can name files; a user's own part that is named alone has the label
    of its class. Errors: ValueError for another label."""
    found: dict[str, Settings] = dict(labelled(part, settings))
    for label in found:
        if not LABEL.fullmatch(label):
            raise ValueError(f"{label!r}: expected a label of letters, digits and any of . _ + -")
    return found


def read_methods(before: Mapping[str, Settings], text: str | list[str]) -> dict[str, Settings]:
    """Methods by label, with the settings that they have in the configuration."""
    return read_parts(METHODS, before, chosen_names(METHODS, text))


def read_metrics(before: Mapping[str, Settings], text: str | list[str]) -> dict[str, Settings]:
    """Metrics by label; all: those that need no ground truth."""
    usual = [n for n, metric in METRICS.items() if metric.kind not in ("mask", "truth")]
    return read_parts(METRICS, before, chosen_names(METRICS, text, usual))


def check_pairs(metrics: Iterable[str]) -> None:
    """Errors: ValueError for none, and for a metric that is not one of pairs of maps."""
    pairs = [name for name, metric in METRICS.items() if metric.kind == "pair"]
    if not metrics:
        raise ValueError(f"metrics: expected some of {', '.join(pairs)}, got none")
    for name in metrics:
        choose("metrics", name, pairs)


def read_attacks(_: Mapping[str, Settings], texts: list[str]) -> dict[str, Settings]:
    found = list(map(_attack, texts))
    labels = [label for label, _ in found]
    for label in labels:
        if labels.count(label) > 1:
            raise ValueError(
                f"--attack: expected a label for each attack, got {label} twice: name them, as in "
                f"--attack first={label}:... --attack second={label}:..."
            )
    return dict(found)


def _attack(text: str) -> tuple[str, Settings]:
    """`[LABEL=]NAME[:SETTING=VALUE,...]` as a label and settings."""
    match = ATTACK.fullmatch(text)
    if match is None:
        raise ValueError(f"--attack: expected [LABEL=]NAME[:SETTING=VALUE,...], got {text!r}")
    pairs = [pair for pair in BETWEEN.split(match["settings"] or "") if pair.strip()]
    settings = dict(setting(f"--attack {match['name']}", pair) for pair in pairs)
    name = ATTACKS.check(match["name"])
    label, own = next(iter(labelled("attack", {name: settings}).items()))
    if match["label"]:
        label, own = match["label"], {"attack": name, **settings}
    return label, own


def labelled_setting(text: str) -> tuple[str, str, Any]:
    """The label (may be empty), the setting and the value of `[LABEL.]NAME=VALUE`."""
    key, found = setting("--set", text)
    label, _, own = key.rpartition(".")
    return label, own, found


def with_setting(
    parts: Mapping[str, Mapping[str, Settings]], label: str, name: str, value: Any
) -> dict[str, Any]:
    """Methods, metrics and attacks with a setting of those with the label. Errors: ValueError."""
    choose("--set: one of the chosen parts", label, [k for found in parts.values() for k in found])
    return {
        kind: {k: {**own, name: value} if k == label else own for k, own in found.items()}
        for kind, found in parts.items()
    }
