"""A method is its configuration: shown whole, and enough to build it again."""

import json
import tomllib
from typing import get_type_hints

import pytest
import tomli_w
import torch
from torch import nn

import moreaugrad
from contracts.networks import ONE_IMAGE, Picture, assert_same, cheap, pictures
from moreaugrad import METHODS, build

pytestmark = pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning")

CHOSEN = {"cam_layer", "centre_lacking", "group_size"}
"""What an explanation has besides its settings: what was chosen, and why there is no centre."""


def test_settings_build_the_same_explainer(method: str) -> None:
    model, x = Picture(), pictures()
    explainer = cheap(method, model, batch_size=3, score="log-probability")
    settings = tomllib.loads(tomli_w.dumps(explainer.settings()))
    again = build(method, model, **settings)
    assert again.settings() == explainer.settings()
    assert repr(again) == repr(explainer)
    assert_same(again.explain(x, 1).maps, explainer.explain(x, 1).maps, 0.0)


def test_the_explanation_has_the_settings(method: str) -> None:
    explainer = cheap(method, Picture())
    result = explainer.explain(pictures(), 1)
    assert result.settings.items() >= explainer.settings().items()
    assert result.settings.keys() - explainer.settings().keys() <= CHOSEN
    assert result.method == explainer.method
    assert json.loads(json.dumps(dict(result.settings))) == result.settings


def test_repr_shows_every_setting(row_name: str) -> None:
    row = METHODS[row_name]
    explainer = build(row_name, Picture(), batch_size=5)
    shown = repr(explainer)
    assert shown.startswith(f"{type(explainer).__name__}(Picture")
    for setting, value in (row.defaults() | {"batch_size": 5}).items():
        if value is None:
            assert f"{setting}=" not in shown
        else:
            assert f"{setting}={value!r}" in shown


def test_the_model_is_not_copied_into_the_settings(method: str) -> None:
    model = Picture()
    explainer = cheap(method, model)
    assert explainer.forward_func is model
    assert not any(isinstance(value, nn.Module) for value in explainer.settings().values())


def test_settings_cannot_be_changed_or_misspelt(method: str) -> None:
    explainer = cheap(method, Picture())
    with pytest.raises(AttributeError):
        explainer.score = "probability"
    with pytest.raises(ValueError, match=r"no setting 'bath_size'; did you mean 'batch_size'\?"):
        build(method, Picture(), bath_size=3)


def test_values_of_another_type_are_refused(method: str) -> None:
    kind = METHODS[method].load()
    for name, hint in get_type_hints(kind).items():
        for wrong in {int: [1.5, True, "two"], float: ["much", True], bool: [1, "no"]}.get(
            hint, []
        ):
            with pytest.raises(ValueError, match=f"{name}: expected"):
                kind(Picture(), **{name: wrong})


def test_the_row_says_what_it_is(row_name: str) -> None:
    row = METHODS[row_name]
    found = row.load()
    assert issubclass(found, moreaugrad.explainers.base.Explainer)
    assert row.summary
    assert row.source
    assert row.settings.keys() <= row.defaults().keys()
    assert row_name.startswith(found.method) or row.settings
    assert getattr(moreaugrad, found.__name__) is found
    assert found.__doc__


def test_some_method_explains_each_form() -> None:
    # Exceptions are named one by one: a method must not become one unseen.
    assert METHODS.keys() >= ONE_IMAGE
    assert torch.is_tensor(cheap("grad-cam", Picture()).attribute(pictures(), target=1))
