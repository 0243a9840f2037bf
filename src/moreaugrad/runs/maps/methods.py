"""The methods of a run with their settings spelt out, the values of a sweep, and the attacks on
each method at each budget."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from moreaugrad.explainers import METHODS
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.captum import CaptumMethod
from moreaugrad.explainers.moreau import Moreau
from moreaugrad.explainers.quality import is_level, tolerance_of
from moreaugrad.registry import choose
from moreaugrad.reports.folder import swept_label
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.explain import SweepPlan
from moreaugrad.runs.plans.maps import COMMON, INPUTS, method_name, takes
from moreaugrad.runs.plans.text import Settings
from moreaugrad.settings import nearest

USUAL = {"rho": (0.0, 0.1, 0.3, 1.0, 3.0), "sigma": (0.0, 0.05, 0.1, 0.2, 0.3)}
"""Values of a sweep that names none."""
AROUND = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0)
"""For eta: times the one that makes nine tenths of the first input's map zero."""
VANISHING = 1e-8
"""rho of the limit rho -> 0: the displacement rho |grad f| is then lost in the input's rounding."""
DRAWN_FROM = 64
"""Baselines are drawn from the run's first inputs, up to this number."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Method:
    """label: of its files. network: which is explained. value: of the swept setting, or None.
    interactions: of how many of a map's largest pixels they are computed, 0 for none."""

    label: str
    name: str
    network: Network
    explainer: Explainer
    target: int | None = None
    value: float | None = None
    interactions: int = 0

    @property
    def settings(self) -> dict[str, Any]:
        """Spelt out, as a configuration has them."""
        named = {} if self.name == self.label else {"method": self.name}
        return {**named, **plain_settings(self.explainer)}


def plain_settings(explainer: Explainer) -> dict[str, Any]:
    """An explainer's settings as a configuration has them."""
    found = explainer.settings()
    drawn = {"baselines": INPUTS} if isinstance(found.get("baselines"), str) else {}
    return {**found, **drawn}


def notes_on(methods: Sequence[Method], inputs: Inputs) -> list[str]:
    """What a user should know of methods that draw from inputs where there is only one, and of
    those whose cost is not known."""
    one = len(inputs.chosen) == 1 and not inputs.of_texts
    alone = [m.label for m in methods if _draws(m.name)] * one
    unforeseen = [
        f"{m.label}: how many network passes a map takes is not known beforehand, estimates "
        f"count {m.explainer.budget()}"
        for m in methods
        if isinstance(m.explainer, CaptumMethod) and not m.explainer.foreseen
    ]
    return unforeseen + [
        f"{label}: one image is no data to draw baselines from; it is compared with a single "
        "baseline, the value of the setting baselines"
        for label in alone
    ]


def _draws(method: str) -> bool:
    """Whether a method draws from baselines; others with this setting have none by default."""
    return METHODS[method].defaults().get("baselines") is not None


def check_settings(settings: Settings, methods: Mapping[str, Settings]) -> None:
    """Errors: ValueError for a common setting that none of the methods has, or can take."""
    names = {label: method_name(label, given) for label, given in methods.items()}
    rows = {label: METHODS[name] for label, name in names.items()}
    for setting, value in settings.items():
        known = {name for row in rows.values() for name in row.defaults()}
        if setting == "tolerance" and isinstance(value, str):
            tolerance_of(value, "--tolerance")  # one message, whichever the methods are
        if any(takes(name, setting, value) for name in names.values()):
            continue
        option = COMMON[setting].name if setting in COMMON else f"--set {setting}"
        fixed = [k for k, row in rows.items() if setting in row.settings]
        if fixed:
            raise ValueError(
                f"{option}: cannot be changed, {fixed[0]} has {setting} = "
                f"{rows[fixed[0]].settings[setting]}: choose another method"
            )
        lacking = f"setting {setting!r}{nearest(setting, known)}"
        raise ValueError(
            f"{option}={value}: {', '.join(rows)} {'has' if len(rows) == 1 else 'have'} no "
            f"{'quality levels' if is_level(value) else lacking} (see: moreaugrad methods)"
        )


def spelt_out(
    label: str,
    given: Settings,
    common: Settings,
    seed: int,
    network: Network,
    inputs: Inputs | None = None,
) -> tuple[str, dict[str, Any]]:
    """A method's name in the registry and its settings: its own, the common ones that it has, the
    run's seed, and what its kind of input and baselines ask for."""
    name = method_name(label, given)
    own = {key: value for key, value in given.items() if key != "method"}
    usual: dict[str, Any] = {"seed": seed}
    if inputs is not None and inputs.of_texts:
        usual |= inputs.settings(network)
    else:
        if "layer" not in own and network.model.array is None:
            usual["std"] = list(network.model.preprocess.std)
        if inputs is not None and len(inputs.chosen) > 1 and _draws(name):
            usual["baselines"] = INPUTS
    usual |= common
    free = {k: v for k, v in usual.items() if k not in own and takes(name, k, v)}
    return name, {**own, **free}


def built(name: str, module: nn.Module, settings: Settings) -> Explainer:
    """The explainer. Errors: ValueError, also for a setting of a wrong type."""
    for setting, value in METHODS[name].settings.items():
        if settings.get(setting, value) != value:
            raise ValueError(
                f"{name}: expected {setting} = {value}, which makes it what it is; got "
                f"{settings[setting]!r}: choose another method"
            )
    try:
        found: Explainer = METHODS.build(name, module, **settings)
        return found
    except TypeError as error:
        raise ValueError(f"{name}: a setting has a wrong type ({error})") from error


def _with_baselines(settings: Settings, network: Network, inputs: Inputs | None) -> Settings:
    """The settings, with inputs as baselines where these are asked for. Errors: ValueError."""
    if settings.get("baselines") != INPUTS:
        return settings
    found = [] if inputs is None else inputs.few(network, DRAWN_FROM)
    shapes = {tuple(x.shape[1:]) for x in found}
    if len(found) < 2 or len(shapes) > 1:
        raise ValueError(
            f"baselines = {INPUTS!r}: expected at least two images that become inputs of one "
            f"shape, got {len(found)} of {len(shapes)} shapes: give more images, --resize and "
            "--crop, or a number (--set baselines=0)"
        )
    return {**settings, "baselines": torch.cat(found)}


def made(
    methods: Mapping[str, Settings], common: Settings, seed: int, network: Network,
    target: int | None, prefix: str = "", inputs: Inputs | None = None,
) -> list[Method]:  # fmt: skip
    """inputs: of the run, which methods may draw baselines from. Errors: ValueError for settings
    that a method does not have or take."""
    named = {k: spelt_out(k, own, common, seed, network, inputs) for k, own in methods.items()}
    module = network.model.module if inputs is None else inputs.module(network)
    return [
        Method(label=prefix + label, name=name, network=network, target=target,
               explainer=built(name, module, _with_baselines(settings, network, inputs)))
        for label, (name, settings) in named.items()
    ]  # fmt: skip


def swept(
    sweep: SweepPlan, common: Settings, seed: int, network: Network, target: int | None,
    first: Tensor, inputs: Inputs,
) -> tuple[SweepPlan, list[Method]]:  # fmt: skip
    """A method for each value, and the sweep spelt out. Errors: ValueError where it has no values.

    first: an input as a batch of one, by which values of eta are chosen.
    """
    module, name, over = network.model.module, sweep.method, sweep.over
    known = METHODS[name].defaults()
    choose(f"over: the setting to sweep of {name}", over, known)
    if over in common:
        raise ValueError(
            f"{over}: expected its values from the sweep alone, got {common[over]!r} "
            "as a fixed setting too: leave one out"
        )
    check_settings(common, {name: sweep.settings})
    _, settings = spelt_out(name, sweep.settings, common, seed, network, inputs)
    settings.pop(over, None)
    values = sweep.values or USUAL.get(over, ())
    if not values and over == "eta" and "sparsity" in known:
        usual = {**settings, "eta": "auto", "sparsity": 0.9}
        eta = float(built(name, module, usual).explain(first, target).eta[0])
        values = tuple(float(f"{eta * times:.2g}") for times in AROUND)
    if not values:
        raise ValueError(
            f"values: expected numbers for the sweep over {over}, such as 1,2,4; got none"
        )
    found = []
    drawn = _with_baselines(settings, network, inputs)
    for value in values:
        # Settings that count are whole numbers.
        given: float = int(value) if type(known[over]) is int and value == int(value) else value
        if over == "rho" and value == 0 and issubclass(METHODS[name].load(), Moreau):
            given = VANISHING
        explainer = built(name, module, {**drawn, over: given})
        found.append(
            Method(label=swept_label(name, over, value), name=name, network=network,
                   explainer=explainer, target=target, value=value)
        )  # fmt: skip
    plain = plain_settings(found[-1].explainer)
    del plain[over]
    return replace(sweep, values=tuple(values), settings=plain), found
