"""How a user computes a map again: a command line, a TOML file, Python."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from moreaugrad.runs.plans.explain import ARRAYS, ExplainPlan
from moreaugrad.runs.plans.maps import COMMON, INPUTS
from moreaugrad.runs.plans.option import with_options
from moreaugrad.runs.plans.texts import TextPlan
from moreaugrad.runs.plans.toml import plan_toml

OPTIONS = {**{name: option.name for name, option in COMMON.items()}, "seed": "--seed"}
"""Of settings; others follow --set."""
Settings = Mapping[str, Any]
Options = Mapping[str, Any]
"""Of the network, the data and the target, by their names: a text, True for a flag, or a list where
it is repeated."""


def python_call(method: str, settings: Settings, target: object = None) -> str:
    """An expression of `mg`, `model` and `x`, and of `baselines` where these are inputs."""
    chosen = {} if target is None else {"target": target}
    return f"mg.build({method!r}, model{_keywords(settings)}).explain(x{_keywords(chosen)})"


def _keywords(given: Settings) -> str:
    drawn = ("baselines", INPUTS)
    return "".join(f", {n}={n if (n, v) == drawn else repr(v)}" for n, v in given.items())


def command(images: Sequence[str], options: Options, method: str, settings: Settings) -> str:
    """The line of a shell. images: their names, as the user is to see them."""
    words = [word for name, value in options.items() for word in _words(name, value)]
    own = [part for name, value in settings.items() for part in _option(name, value)]
    return shlex.join(
        ["moreaugrad", "explain", *images, *words, "--method", method, *own, "--out", "maps"]
    )


def recipes(
    images: Sequence[str], options: Options, method: str, settings: Settings, target: object
) -> dict[str, str]:
    """All three: `command`, `toml` (in the working folder) and `python`.

    images: or series, or volumes. target: as Python has it, the command's is an option.
    """
    named = {"IMAGE": list(images)} if images else {}
    chosen = {OPTIONS[name]: _text(value) for name, value in settings.items()}
    given = {**named, **options, "--methods": method, **chosen}
    plan = with_options(ExplainPlan(), given, hidden=("sweep",))
    if plan.kind == ARRAYS:
        plan = plan.with_arrays()
    model = plan.model.arguments().items()
    loading = ", ".join(f"{k}={v!r}" for k, v in model if v or (k == "array" and v is not None))
    return {
        "command": command(images, options, method, settings),
        "toml": plan_toml(plan, Path.cwd()),
        "python": f"import moreaugrad as mg\nloaded = mg.load_model({loading})\n"
        + _explaining(plan, next(iter(images), "photo.jpg"), method, settings, target),
    }


def _explaining(
    plan: ExplainPlan, image: str, method: str, settings: Settings, target: object
) -> str:
    """The lines of Python from `loaded` to `result`."""
    if plan.text is not None:
        how = {} if target is None else {"target": target}
        for one in fields(TextPlan):
            value = getattr(plan.text, one.name)
            if one.name != "texts" and value != getattr(TextPlan(), one.name):
                how["groups" if one.name == "units" else one.name] = value
        labels = ", labels=loaded.labels" if plan.model.labels else ""
        return (
            f"texts = {list(plan.text.texts)!r}\n"
            f"result = mg.text.explain(loaded.module, loaded.tokenizer, texts, {method!r}"
            f"{_keywords({**how, **settings})}{labels})\n"
        )
    reading = f"loaded.preprocess(mg.load_image({image!r}))"
    if plan.kind == ARRAYS:
        reading = f"loaded.array(mg.data.read_array({image!r}))"
    call = python_call(method, settings, target)
    return f"model = loaded.module\nx = {reading}[None]\nresult = {call}\n"


def _words(name: str, value: Any) -> list[str]:
    """An option as words of a command line."""
    if value is True:
        return [name]
    each = [value] if isinstance(value, str) else value
    # A value such as "-5 stars" would be read as an option.
    return [w for v in each for w in ([f"{name}={v}"] if v.startswith("-") else [name, v])]


def _option(setting: str, value: Any) -> list[str]:
    """A setting as words of a command line; None of a common one is what it is by default."""
    known = COMMON.get(setting)
    if known is not None and known.is_flag:
        return [known.name if value else known.negative]
    if known is not None and value is None:
        return []
    text = _text(value)
    return [OPTIONS[setting], text] if setting in OPTIONS else ["--set", f"{setting}={text}"]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
