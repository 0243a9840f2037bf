"""The explorer in a notebook: Jupyter, VS Code, Colab, marimo."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anywidget
from torch import nn

from moreaugrad.explainers import METHODS
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.explainers.quality import is_level
from moreaugrad.explorer import static
from moreaugrad.explorer.core import LEFT_OUT, Explorer
from moreaugrad.explorer.state import State
from moreaugrad.registry import choose
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.network import Network
from moreaugrad.score.targets import Readout

_CODE = "".join(
    line.removeprefix("export ") if "export default" not in line else line
    for name in ("maps.js", "explorer.js", "widget.js")
    for line in static(name).decode().splitlines(keepends=True)
    if not line.startswith("import ")
)


class ExplorerWidget(anywidget.AnyWidget):
    """The explorer of inputs `[B, C, H, W]` of a model. labels: of its classes. state: where it
    begins."""

    _esm = f"{_CODE}const MARKUP = {json.dumps(static('explorer.html').decode())};"
    _css = static("explorer.css").decode()

    def __init__(self, model: nn.Module, x: Any, labels: Sequence[str], **state: Any) -> None:
        super().__init__()
        network, inputs = Network.of(model, x), Inputs.of(x)
        self._explorer = Explorer(network=network, inputs=inputs, labels=labels, state=state)
        self._pool, self._gone = ThreadPoolExecutor(8), set[str]()
        self.on_msg(self._asked)

    def _asked(self, _: Any, content: Any, buffers: list[Any]) -> None:
        key, body = content["id"], bytes(buffers[0]) if buffers else b""
        if content.get("gone"):
            self._gone.add(key)
        else:
            self._pool.submit(self._work, key, content["request"], body)

    def _work(self, key: str, request: Any, body: bytes) -> None:
        for header, data in self._explorer.answer(request, body, "", lambda: key in self._gone):
            self.send({"id": key, "header": header}, [data])
        self.send({"id": key})
        self._gone.discard(key)


def explore(found: Explanation, model: nn.Module) -> ExplorerWidget:
    """The explorer of an explanation's inputs, where it begins with its method and settings.

    Warns where the explorer lacks one of them. Errors: ValueError for a method that it lacks.
    """
    if found.function is not None:
        raise ValueError(
            f"target: expected the explanation of a class, which the explorer shows, got that of "
            f"{found.label(int(found.target[0]))}"
        )
    choose("method", found.method, [name for name in METHODS if name not in LEFT_OUT])
    state, given = _state(found), dict(found.settings)
    begun = {**METHODS[found.method].defaults(), **State(image="", **state).settings}
    if "eta" in state:
        given.pop("sparsity", None)  # has no effect
    others = {n: begun[n] for n in given if n in begun and repr(given[n]) != repr(begun[n])}
    if others:
        words = ", ".join(f"{name}={value!r}" for name, value in others.items())
        lacks = "the explorer lacks settings of this result, and begins with another map: that with"
        warnings.warn(f"{lacks} {words}", stacklevel=3)
    names = found.labels
    labels = [names.get(index, f"class {index}") for index in range(max(names, default=-1) + 1)]
    return ExplorerWidget(model, found.inputs, labels, **state)


def _state(found: Explanation) -> dict[str, Any]:
    """What the explorer has of a result's settings, as its `State` has them."""
    given = {name: found.settings.get(name) for name in ("rho", "sigma", "sparsity", "eta", "seed")}
    state: dict[str, Any] = {n: v for n, v in given.items() if isinstance(v, int | float)}
    level = found.settings.get("tolerance")
    state |= {"quality": level} if is_level(level) else {}
    state["against"] = Readout(kind=found.settings.get("score", "logit")).rival
    return {**state, "method": found.method, "target": int(found.target[0])}
