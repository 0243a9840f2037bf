"""Figures for notebooks: what is on them, and what they leave alone."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from PIL import Image

from moreaugrad.explainers.explanation import Explanation
from moreaugrad.pictures import Style, draw, palette, photo, read_settings
from moreaugrad.pictures.plot import figure, plot_maps, save_figure
from moreaugrad.solvers.solution import Status

RNG = np.random.default_rng(0)
MAP = RNG.normal(size=(3, 12, 10))
IMAGE = RNG.random((12, 10, 3))


def panels(shown):
    return {axes.get_title(): axes for axes in shown.axes if axes.get_title()}


def test_a_figure_shows_all_views():
    found = panels(figure(torch.from_numpy(MAP), IMAGE, title="a title"))
    assert list(found) == ["photo", "heat", "signed", "overlay", "masked"]
    for name, picture in draw(MAP, IMAGE).items():
        assert np.array_equal(found[name].images[0].get_array(), picture.pixels)


def test_colour_bars_end_at_the_scale():
    picture = draw(MAP)["signed"]
    bar = panels(figure(MAP))["signed"].child_axes[0]
    assert bar.get_xlim() == pytest.approx((picture.scale.low, picture.scale.high))
    assert np.array_equal(bar.images[0].get_array()[0], palette("blue-white-orange"))
    assert bar.get_xticks().tolist() == [picture.scale.low, 0, picture.scale.high]


def test_a_zero_map_is_named():
    bar = panels(figure(np.zeros((3, 5, 5))))["heat"].child_axes[0]
    assert [text.get_text() for text in bar.texts] == ["map is zero"]
    bars = figure(np.zeros(4), names=list("abcd"))
    assert [text.get_text() for text in bars.axes[0].texts] == ["map is zero"]


def test_a_comparison_has_a_panel_for_each_map():
    maps = {name: MAP * k for k, name in enumerate(("one", "two", "three", "four", "five"))}
    shown = plot_maps(maps, IMAGE, columns=3)
    assert list(panels(shown)) == ["image", *maps]
    assert len(shown.axes) == 6
    with pytest.raises(ValueError, match="at least one map"):
        plot_maps({})


def test_features_are_named_bars():
    values = np.array([0.5, -2.0, 0.0])
    axes = figure(values, names=["age", "<income>", "height"]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["age", "<income>", "height"]
    assert [bar.get_width() for bar in axes.patches] == values.tolist()
    with pytest.raises(ValueError, match="expected 3 names, one per entry; got 1"):
        figure(values, names=["age"])
    priced = figure(values, names=["$x_{$", "a $b$", "c"])
    assert all(not name.get_parse_math() for name in priced.axes[0].get_yticklabels())
    priced.canvas.draw()
    heights = [bar.get_height() for bar in figure(RNG.normal(size=100)).axes[0].patches]
    assert len(heights) == 100


def test_a_saved_figure_carries_settings(tmp_path):
    save_figure(figure(MAP), tmp_path / "map.png", {"method": "moreaugrad"})
    assert read_settings(tmp_path / "map.png") == {"method": "moreaugrad"}
    save_figure(figure(MAP), tmp_path / "map.pdf")
    assert (tmp_path / "map.pdf").read_bytes().startswith(b"%PDF")
    with pytest.raises(ValueError, match=r"expected a file ending in one of .*png.*; got map\.doc"):
        save_figure(figure(MAP), "map.doc")


def test_a_notebook_shows_it_without_pyplot(tmp_path):
    before = plt.get_fignums()
    data = figure(MAP)._repr_png_()
    (tmp_path / "shown.png").write_bytes(data)
    with Image.open(tmp_path / "shown.png") as image:
        assert image.width > 500
    assert plt.get_fignums() == before


def explanation(maps, inputs, z_scores=None):
    classes = torch.tensor([3, 5])
    return Explanation(
        maps=maps,
        inputs=inputs,
        z_scores=z_scores,
        target=classes,
        prediction=classes,
        score=torch.zeros(2),
        status=(Status.CONVERGED, Status.BUDGET_USED),
        residual=torch.zeros(2),
        error=torch.zeros(2),
        eta=torch.zeros(2),
        steps=classes,
        evaluations=classes,
        method="moreaugrad",
        settings={"rho": 1.0},
    )


def test_an_explanation_plots_one_of_its_samples(tmp_path):
    maps, inputs = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8)
    shown = explanation(maps, inputs).plot(tmp_path / "map.png", index=1)
    assert shown.get_suptitle() == "moreaugrad, class 5: budget used"
    heat = panels(shown)["heat"].images[0].get_array()
    assert np.array_equal(heat, draw(maps[1])["heat"].pixels)
    assert list(panels(shown)) == ["photo", "heat", "signed", "overlay", "masked"]
    assert read_settings(tmp_path / "map.png") == {"method": "moreaugrad", "settings": {"rho": 1}}


def test_an_explanation_of_several_inputs_plots_the_part_asked_for():
    maps = (torch.randn(2, 3, 8, 8), torch.randn(2, 5))
    several = explanation(maps, tuple(torch.randn_like(part) for part in maps))
    bars = several.plot(part=1, title="features").axes[0].patches
    assert [bar.get_height() for bar in bars] == pytest.approx(maps[1][0].tolist())


def test_an_explanation_is_plotted_with_its_own_z_scores():
    maps, inputs, z = torch.randn(2, 3, 8, 8), torch.randn(2, 3, 8, 8), 3 * torch.rand(2, 3, 8, 8)
    style = Style(certain=0.9)
    for row in (0, 1):
        shown = explanation(maps, inputs, z).plot(index=row, style=style)
        over = panels(shown)["overlay"].images[0].get_array()
        drawn = [
            draw(maps[row], photo(inputs[row]).pixels, style, scores)["overlay"].pixels
            for scores in (z[row], None)
        ]
        assert np.array_equal(over, drawn[0])
        assert not np.array_equal(over, drawn[1])


def test_an_explanation_that_is_not_finite_is_not_plotted():
    maps = torch.full((2, 3, 8, 8), torch.nan)
    with pytest.raises(ValueError, match="look at the explanation's status"):
        explanation(maps, torch.rand(2, 3, 8, 8)).plot(index=0)


def test_several_samples_are_a_grid_of_one_view():
    maps, inputs = torch.randn(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    maps[1] = torch.nan
    shown = explanation(maps, inputs).with_labels({3: "$x_{$", 5: "y"}).plot()
    found = panels(shown)
    assert list(found) == ["0: $x_{$: converged", "1: y: budget used"]
    drawn = draw(maps[0], photo(inputs[0]).pixels)["overlay"].pixels
    assert np.array_equal(found["0: $x_{$: converged"].images[0].get_array(), drawn)
    assert [text.get_text() for text in found["1: y: budget used"].texts] == ["no map"]
    shown._repr_png_()  # a label is no formula
    assert "first 1 of 2" in explanation(maps, inputs).plot(most=1).get_suptitle()
    with pytest.raises(ValueError, match="a sample to draw"):
        explanation(maps, inputs)[2:].plot()


def test_a_map_is_drawn_on_given_axes():
    maps, inputs = torch.randn(2, 3, 8, 8), torch.rand(2, 3, 8, 8)
    whole, (left, right) = plt.subplots(1, 2)
    one = explanation(maps, inputs)
    assert one.plot(index=1, ax=right, view="signed", title="mine") is whole
    assert right.get_title() == "mine"
    assert np.array_equal(right.images[0].get_array(), draw(maps[1])["signed"].pixels)
    assert not left.images
    part = whole.subfigures().subplots()
    assert one[0].plot(ax=part) is whole
    for given, why in (
        ({}, "one sample"),
        ({"index": 0, "view": "x"}, "view"),
        ({"index": 0, "path": "a.png"}, "path"),
    ):
        with pytest.raises(ValueError, match=why):
            one.plot(ax=left, **given)
    plt.close(whole)
