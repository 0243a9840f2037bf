"""The methods of a run: settings spelt out, and the values of a sweep."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from moreaugrad.explainers import METHODS
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.moreau import Moreau
from moreaugrad.files.names import number_name
from moreaugrad.models import LoadedModel
from moreaugrad.registry import choose
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.explain import SweepPlan
from moreaugrad.runs.plans.option import Settings
from moreaugrad.settings import nearest

COMPARED = "compared."
"""Before the labels of the second network's methods."""
USUAL = {"rho": (0.0, 0.1, 0.3, 1.0, 3.0), "sigma": (0.0, 0.05, 0.1, 0.2, 0.3)}
"""Values of a sweep that names none."""
AROUND = (0.0, 0.125, 0.25, 0.5, 1.0, 2.0)
"""For eta: times the one that makes nine tenths of the first input's map zero."""
VANISHING = 1e-8
"""rho of the limit rho -> 0: the displacement rho |grad f| is then lost in the input's rounding."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Method:
    """label: of its files. network: which is explained. value: of the swept setting, or None."""

    label: str
    name: str
    network: Network
    explainer: Explainer
    target: int | None = None
    value: float | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Spelt out, as a configuration has them."""
        named = {} if self.name == self.label else {"method": self.name}
        return {**named, **self.explainer.settings()}


def check_settings(settings: Settings, methods: Mapping[str, Settings]) -> None:
    """Errors: ValueError for a common setting that none of the methods has, or can take."""
    rows = {label: METHODS[_name(label, given)] for label, given in methods.items()}
    for setting, value in settings.items():
        known = {name for row in rows.values() for name in row.defaults()}
        taking = [r for r in rows.values() if setting in r.defaults() and setting not in r.settings]
        fixed = [f"{k} has {setting} = {r.settings[setting]}"
                 for k, r in rows.items() if setting in r.settings]  # fmt: skip
        option = f"--{setting.replace('_', '-')}"
        if not taking and fixed:
            raise ValueError(f"{option}: cannot be changed, {fixed[0]}: choose another method")
        if not taking:
            raise ValueError(
                f"{option}={value}: {', '.join(rows)} {'has' if len(rows) == 1 else 'have'} no "
                f"setting {setting!r}{nearest(setting, known)} (see: moreaugrad methods)"
            )


def _name(label: str, given: Settings) -> str:
    return METHODS.check(str(given.get("method", label)))


def spelt_out(
    label: str, given: Settings, common: Settings, seed: int, model: LoadedModel
) -> tuple[str, dict[str, Any]]:
    """A method's name in the registry and its settings: its own, the common ones that it has, the
    run's seed, and what the preprocessing divides by where it asks for that."""
    own = {key: value for key, value in given.items() if key != "method"}
    name = _name(label, given)
    row = METHODS[name]
    usual = {**({"std": list(model.preprocess.std)} if "layer" not in own else {}), "seed": seed}
    for settings in (common, usual):
        for key, value in settings.items():
            if key in row.defaults() and key not in row.settings:
                own.setdefault(key, value)
    return name, own


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


def made(
    methods: Mapping[str, Settings],
    common: Settings,
    seed: int,
    network: Network,
    target: int | None,
    prefix: str = "",
) -> list[Method]:
    """Errors: ValueError for settings that a method does not have or take."""
    found = []
    for label, given in methods.items():
        name, settings = spelt_out(label, given, common, seed, network.model)
        explainer = built(name, network.model.module, settings)
        found.append(
            Method(label=prefix + label, name=name, network=network, explainer=explainer,
                   target=target)
        )  # fmt: skip
    return found


def swept(
    sweep: SweepPlan, common: Settings, seed: int, network: Network, target: int | None,
    first: Tensor,
) -> tuple[SweepPlan, list[Method]]:  # fmt: skip
    """A method for each value, and the sweep spelt out. Errors: ValueError where it has no values.

    first: an input as a batch of one, by which values of eta are chosen.
    """
    module, name = network.model.module, sweep.method
    known = METHODS[name].defaults()
    choose(f"over: the setting to sweep of {name}", sweep.over, known)
    if sweep.over in common:
        raise ValueError(
            f"{sweep.over}: expected its values from the sweep alone, got {common[sweep.over]!r} "
            "as a fixed setting too: leave one out"
        )
    check_settings(common, {name: sweep.settings})
    _, settings = spelt_out(name, sweep.settings, common, seed, network.model)
    settings.pop(sweep.over, None)
    values = sweep.values or USUAL.get(sweep.over, ())
    if not values and sweep.over == "eta" and "sparsity" in known:
        usual = {**settings, "eta": "auto", "sparsity": 0.9}
        eta = float(built(name, module, usual).explain(first, target).eta[0])
        values = tuple(float(f"{eta * times:.2g}") for times in AROUND)
    if not values:
        raise ValueError(
            f"values: expected numbers for the sweep over {sweep.over}, such as 1,2,4; got none"
        )
    found = []
    for value in values:
        given = settings | {sweep.over: _typed(known[sweep.over], value)}
        if sweep.over == "rho" and value == 0 and _has_envelope(name):
            given["rho"] = VANISHING
        found.append(
            Method(label=f"{name}.{sweep.over}={number_name(value)}", name=name, network=network,
                   explainer=built(name, module, given), target=target, value=value)
        )  # fmt: skip
    plain = found[-1].explainer.settings()
    del plain[sweep.over]
    return replace(sweep, values=tuple(values), settings=plain), found


def _has_envelope(name: str) -> bool:
    return issubclass(METHODS[name].load(), Moreau)


def _typed(default: Any, value: float) -> Any:
    """Whole numbers for settings that count."""
    counts = isinstance(default, int) and not isinstance(default, bool)
    return int(value) if counts and value == int(value) else value
