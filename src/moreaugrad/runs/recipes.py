"""How a user computes a map again: a command line, a TOML file, Python."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moreaugrad.runs.plans.explain import ExplainPlan
from moreaugrad.runs.plans.maps import COMMON
from moreaugrad.runs.plans.option import with_options
from moreaugrad.runs.plans.toml import plan_toml

OPTIONS = {**{name: option.name for name, option in COMMON.items()}, "seed": "--seed"}
"""Of settings; others follow --set."""
Settings = Mapping[str, Any]
Options = Mapping[str, str]
"""Of the network, the data and the target, by their names."""


def python_call(method: str, settings: Settings, target: object = None) -> str:
    """An expression of `mg`, `model` and `x`."""
    own = "".join(f", {name}={value!r}" for name, value in settings.items())
    chosen = "" if target is None else f", target={target}"
    return f"mg.build({method!r}, model{own}).explain(x{chosen})"


def command(images: Sequence[str], options: Options, method: str, settings: Settings) -> str:
    """The line of a shell. images: their names, as the user is to see them."""
    words = [part for option in options.items() for part in option]
    own = [part for name, value in settings.items() for part in _option(name, value)]
    return shlex.join(
        ["moreaugrad", "explain", *images, *words, "--method", method, *own, "--out", "maps"]
    )


def recipes(
    images: Sequence[str], options: Options, method: str, settings: Settings, target: object
) -> dict[str, str]:
    """All three: `command`, `toml` (in the working folder) and `python`."""
    named = {"IMAGE": list(images)} if images else {}
    chosen = {OPTIONS[name]: _text(value) for name, value in settings.items()}
    plan = with_options(ExplainPlan(), {**named, **options, "--methods": method, **chosen})
    model = plan.model.arguments().items()
    loading = ", ".join(f"{name}={value!r}" for name, value in model if value)
    return {
        "command": command(images, options, method, settings),
        "toml": plan_toml(plan, Path.cwd()),
        "python": "import moreaugrad as mg\n"
        f"loaded = mg.load_model({loading})\nmodel = loaded.module\n"
        f"x = loaded.preprocess(mg.load_image({next(iter(images), 'photo.jpg')!r}))[None]\n"
        f"result = {python_call(method, settings, target)}\n",
    }


def _option(setting: str, value: Any) -> tuple[str, str]:
    text = _text(value)
    return (OPTIONS[setting], text) if setting in OPTIONS else ("--set", f"{setting}={text}")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
