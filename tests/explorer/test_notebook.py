"""The explorer in a notebook: the same answers, as messages of a widget."""

import gc
import json
import threading
import weakref
from typing import Any

import numpy as np
import pytest
import torch

import moreaugrad as mg
import tiny_models
import toys
from browser import Browser
from moreaugrad.explorer import notebook

X = toys.normal(2, 3, 16, 16, seed=4).float()


class Wire:
    """What a widget sends, as a page would get it."""

    def __init__(self, widget: Any) -> None:
        self.sent: list[tuple[dict[str, Any], Any]] = []
        self.ended = threading.Event()
        widget.send = self._send

    def _send(self, content: dict[str, Any], buffers: Any = None) -> None:
        if "header" in content:
            self.sent.append((content["header"], buffers[0]))
        else:
            self.ended.set()


def test_a_result_is_explored_where_it_was() -> None:
    model = tiny_models.kinked().module
    result = mg.SparseMoreauGrad(model, rho=0.5, sparsity=0.8, seed=2).explain(X, 3)
    widget = result.explore()
    wire = Wire(widget)
    widget._asked(None, {"id": "a", "request": {"do": "info"}}, [])
    assert wire.ended.wait(20)
    state = wire.sent[0][0]["state"]
    known = {"method": "sparse-moreaugrad", "rho": 0.5, "sparsity": 0.8, "seed": 2, "target": 3}
    assert known.items() <= state.items()
    wire.sent.clear()
    wire.ended.clear()
    asked = {"do": "explain", "image": "0", **{k: v for k, v in state.items() if k != "image"}}
    widget._asked(None, {"id": "b", "request": asked}, [])
    assert wire.ended.wait(60)
    header, data = wire.sent[-1]
    assert header["done"]
    gradient = np.frombuffer(data, np.float32)[: X[0].numel()].reshape(1, 3, 16, 16)
    maps = mg.L1(header["eta"]).prox(torch.from_numpy(gradient.copy()), 1.0)
    assert torch.allclose(maps, result.maps[:1], atol=1e-5)
    assert wire.sent[0][0]["python"].startswith("result = mg.build")


@pytest.mark.parametrize(
    ("method", "settings", "known"),
    [
        ("sparse-moreaugrad", {"score": "against:1"}, {"against": 1}),
        ("sparse-moreaugrad", {"tolerance": "fine"}, {"quality": "fine"}),
        ("sparse-moreaugrad", {"eta": 0.1, "sparsity": 0.7}, {"eta": 0.1}),
        ("moreaugrad", {"sigma": 0.2}, {"sigma": 0.2}),
        ("smoothgrad", {}, {"sigma": 0.15}),
        ("simple-gradient", {}, {}),
    ],
)
def test_it_begins_with_the_settings_of_a_result(
    method: str, settings: dict[str, Any], known: dict[str, Any], recwarn: Any
) -> None:
    result = mg.build(method, tiny_models.kinked().module, **settings).explain(X[:1], 3)
    recwarn.clear()
    state = result.explore()._explorer.state
    assert known.items() <= state.items()
    assert not [each for each in recwarn if "another map" in str(each.message)]


@pytest.mark.parametrize(
    ("method", "settings", "begun"),
    [
        ("simple-gradient", {"score": "probability"}, "score='logit'"),
        ("smoothgrad", {"samples": 8}, "samples="),
        ("group-sparse-moreaugrad", {"group": 4, "tolerance": 0.5}, "tolerance=.*, group="),
        ("sparse-moreaugrad", {"sigma_mode": "absolute"}, "sigma_mode='relative'"),
    ],
)
def test_settings_that_it_lacks_are_said(method: str, settings: dict[str, Any], begun: str) -> None:
    result = mg.build(method, tiny_models.kinked().module, **settings).explain(X[:1], 3)
    with pytest.warns(UserWarning, match=f"another map.*{begun}"):
        result.explore()


def test_methods_that_it_lacks_are_refused() -> None:
    model = tiny_models.kinked().module
    result = mg.PublishedMoreauGrad(model, steps=2, average=1, draws=1).explain(X[:1])
    with pytest.raises(ValueError, match="method"):
        result.explore()


def test_what_is_given_up_ends() -> None:
    widget = mg.SparseMoreauGrad(tiny_models.kinked().module, tolerance="fine").explain(X).explore()
    wire = Wire(widget)
    widget._gone.add("a")
    widget._asked(None, {"id": "a", "request": {"do": "explain", "image": "0"}}, [])
    assert wire.ended.wait(20)
    assert not any(header.get("done") for header, _ in wire.sent)


def test_parts_need_the_model_and_nothing_keeps_it() -> None:
    model = tiny_models.kinked().module
    result = mg.SimpleGradient(model).explain(X)
    with pytest.raises(ValueError, match="model"):
        result[0].explore()
    assert result[0].explore(model) is not None
    reference = weakref.ref(model)
    del result, model
    gc.collect()
    from ipywidgets import Widget

    Widget.close_all()
    gc.collect()
    assert reference() is None


def test_inputs_that_are_no_images_are_refused() -> None:
    result = mg.SimpleGradient(toys.network((5, 8, 3))).explain(toys.normal(2, 5, seed=0))
    with pytest.raises(ValueError, match="images"):
        result.explore()


@pytest.mark.chromium
def test_the_code_of_the_widget_is_one_module(chromium: Browser) -> None:
    """It answers messages as they come from a kernel."""
    chromium.open("about:blank")
    script = f"""(async () => {{
      const code = new Blob([{json.dumps(notebook.ExplorerWidget._esm)}],
        {{type: "text/javascript"}});
      const {{default: widget}} = await import(URL.createObjectURL(code));
      const sent = [], listening = [], wait = () => new Promise(done => setTimeout(done, 50));
      const model = {{on: (_, work) => listening.push(work), send: message => sent.push(message)}};
      const el = document.body.appendChild(document.createElement("div"));
      widget.render({{model, el}});
      await wait();
      const methods = {{x: {{summary: "", settings: []}}}};
      const state = {{method: "x", sparsity: .9, rho: 1}};
      const header = {{model: "<b>m", kind: "images", images: [], labels: [], methods,
        qualities: {{}}, state}};
      listening[0]({{id: sent[0].id, header}}, [new DataView(new ArrayBuffer(0))]);
      await wait();
      return [sent[0].request.do, el.querySelector("[data-is=model]").textContent];
    }})()"""
    assert chromium.ask(script) == ["info", "<b>m"]


def test_it_has_the_names_of_the_classes() -> None:
    result = mg.SimpleGradient(tiny_models.smooth().module).explain(X).with_labels({2: "owl"})
    widget = result[0].explore(tiny_models.smooth().module)
    wire = Wire(widget)
    widget._asked(None, {"id": "a", "request": {"do": "info"}}, [])
    assert wire.ended.wait(20)
    assert wire.sent[0][0]["labels"] == ["class 0", "class 1", "owl"]
