"""What is made of values: slices, frames, text, pages, figures and shap's explanations."""

import itertools
import re
import sys
import types

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

import moreaugrad as mg
from moreaugrad.table import drawing

NASTY = '<script>alert("1")</script>\x1b[31m $x_1^2'
COLUMNS = ["age", "city_Paris", "city_Rome", NASTY]


def frame(count: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    city = rng.integers(0, 2, count)
    numbers = np.stack([rng.normal(40, 9, count), city, 1 - city, rng.normal(size=count)], axis=1)
    return pd.DataFrame(numbers, columns=COLUMNS, index=[f"row-{at}" for at in range(count)])


def network() -> nn.Module:
    torch.manual_seed(0)
    first = nn.Linear(4, 8)
    with torch.no_grad():
        first.weight[:, 0] /= 9
    return nn.Sequential(first, nn.SiLU(), nn.Linear(8, 3)).eval()


def explained(method="integrated-gradients", **others):
    given = {"background": frame(), "groups": {"city": COLUMNS[1:3]}, "target": 1, **others}
    return mg.table.explain(network(), frame(), method, **given)


FOUND = explained()


def test_slices():
    assert len(FOUND) == 30
    some = FOUND[[3, 5]]
    assert torch.equal(some.values, FOUND.values[[3, 5]])
    assert torch.equal(some.base, FOUND.base[[3, 5]])
    assert some.rows.index.tolist() == ["row-3", "row-5"]
    assert some.data("age").tolist() == frame()["age"].iloc[[3, 5]].tolist()
    assert len(FOUND[:4]) == 4
    assert torch.equal(FOUND[-1].values[0], FOUND.values[-1])
    mask = np.arange(30) > 27
    assert FOUND[mask].rows.index.tolist() == ["row-28", "row-29"]
    assert sum(len(one) for one in FOUND) == 30
    with pytest.raises(IndexError):
        FOUND[30]


def test_groups_of_indicators_are_shown_by_category():
    expected = ["Paris" if own else "Rome" for own in frame()["city_Paris"]]
    assert FOUND.data("city").tolist() == expected
    other = explained(groups={"both": ["age", "city_Rome"]})
    assert other.data("both").tolist() == [None] * 30


@pytest.mark.parametrize(
    ("group", "columns"),
    [
        ("s", ["size_s", "size_m"]),
        ("city", ["velocity__city_size_s", "velocity__city_size_m"]),
        ("size", ["size=size_s", "size=size_m"]),
    ],
)
def test_categories_are_what_follows_the_name_of_the_group(group, columns):
    """`city_Paris` is Paris in the group city; a letter elsewhere in a name is no group's."""
    rows = pd.DataFrame([[1, 0], [0, 1]], columns=columns)
    model = torch.nn.Linear(2, 2).eval()
    found = mg.table.explain(model, rows, "simple-gradient", groups={group: columns})
    assert found.data(group).tolist() == ["size_s", "size_m"]


def test_frames():
    found = FOUND.to_pandas()
    assert found.index.tolist() == frame().index.tolist()
    assert found.columns.tolist() == ["age", "city", NASTY]
    assert np.array_equal(found.to_numpy(), FOUND.values.numpy())


def test_text_fits_a_screen():
    wide = pd.DataFrame(np.eye(200), columns=[f"column {at} " + "x" * 90 for at in range(200)])
    found = mg.table.explain(nn.Linear(200, 2).eval(), wide, "simple-gradient", target=0)
    for text in (repr(found), repr(found[0]), repr(FOUND), repr(FOUND[0])):
        assert len(text.splitlines()) <= 25
        assert max(map(len, text.splitlines())) <= 100
        assert "\x1b" not in text
    assert "30 rows by integrated-gradients" in repr(FOUND)
    assert FOUND.meaning in repr(FOUND)
    assert f"{float(FOUND.values[0, 0]):+.4g}" in repr(FOUND[0])
    assert f"{float(FOUND.values[:, 0].abs().double().mean()):.4g}" in repr(FOUND)


def test_pages_escape_names():
    for page in (FOUND._repr_html_(), FOUND[2]._repr_html_()):
        assert "<script>" not in page
        assert "&lt;script&gt;" in page
        assert "\x1b" not in page
    assert "Rome" in FOUND[int((frame()["city_Rome"] == 1).argmax())]._repr_html_()
    assert FOUND.meaning in FOUND._repr_html_()


def bars(figure: Figure) -> list[tuple[float, float]]:
    """(start, end) of the bars of the only axes."""
    return [(p.get_x(), p.get_x() + p.get_width()) for p in figure.axes[0].patches]


def labels(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.axes[0].get_yticklabels()]


def test_a_waterfall_goes_from_the_baseline_to_the_score():
    row = FOUND[4]
    steps = bars(row.plot())
    assert steps[0][0] == pytest.approx(float(row.base), rel=1e-5)
    for (_, end), (start, _) in itertools.pairwise(steps):
        assert start == pytest.approx(end, rel=1e-5)
    assert steps[-1][1] == pytest.approx(float(row.score), rel=2e-3)
    order = row.values[0].abs().argsort(descending=True).tolist()
    sizes = [end - start for start, end in steps[:3]]
    assert sizes == pytest.approx(row.values[0, order].tolist(), rel=1e-4)
    cut = row.plot(most=1)
    assert labels(cut)[1] == "2 others together"
    assert bars(cut)[1][1] == pytest.approx(float(row.base + row.values.sum()), rel=1e-4)


def test_what_is_not_attributed_is_drawn():
    row = explained("expected-gradients", samples=16)[0]
    gap = float(row.explanation.details["gap"])
    figure = row.plot()
    assert labels(figure)[-1] == "not attributed (error)"
    start, end = bars(figure)[-1]
    assert end == pytest.approx(float(row.score), rel=1e-5)
    assert end - start == pytest.approx(-gap, abs=1e-4)


@pytest.mark.parametrize("method", ["simple-gradient", "smoothgrad", "gradient-x-input"])
def test_values_that_do_not_add_up_have_no_waterfall(method):
    found = explained(method)
    assert not found.complete
    assert found.base is None
    figure = found[0].plot()
    assert {start for start, _ in bars(figure)} == {0.0}
    assert found.meaning in figure.axes[0].get_xlabel()
    with pytest.raises(ValueError, match=r"kind: .*kind='bar'"):
        found[0].plot(kind="waterfall")


def test_an_incomplete_map_has_no_waterfall():
    found = explained("integrated-gradients", steps=1, tolerance=1e-9)
    assert found.base is not None
    assert not found.complete
    assert bars(found[0].plot())[0][0] == 0.0
    with pytest.raises(ValueError, match="incomplete"):
        found[0].plot(kind="waterfall")


def test_bars_of_many_rows_are_mean_magnitudes():
    figure = FOUND.plot(kind="bar")
    order = FOUND.strength().argsort(descending=True)
    expected = FOUND.values.double().abs().mean(0)[order].tolist()
    assert [end for _, end in bars(figure)] == pytest.approx(expected)
    assert labels(FOUND.plot(kind="bar", most=2))[0].startswith(FOUND.names[order[0]][:5])


@pytest.mark.parametrize("kind", ["bar", "beeswarm"])
def test_how_many_names_are_not_drawn_is_said_below_the_others(kind):
    figure = FOUND.plot(kind=kind, most=2)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    (more,) = [text for text in axes.texts if text.get_text() == "and 1 more"]
    place = more.get_window_extent()
    low, high = axes.get_xlim()
    numbers = [label for label in axes.get_xticklabels() if low <= label.get_position()[0] <= high]
    for label in (*numbers, *axes.get_yticklabels()):
        assert not place.overlaps(label.get_window_extent()), label
    assert place.y1 < min(label.get_window_extent().y0 for label in axes.get_yticklabels())


def test_a_swarm_has_a_point_for_each_row(monkeypatch):
    figure = FOUND.plot()
    order = FOUND.strength().argsort(descending=True).tolist()
    for place, points in enumerate(figure.axes[0].collections):
        at = points.get_offsets()
        assert np.array_equal(at[:, 0], FOUND.values[:, order[place]].double().numpy())
        assert np.abs(at[:, 1] - place).max() <= 0.4
        assert len(np.unique(np.asarray(at).round(9), axis=0)) == 30
    monkeypatch.setattr(drawing, "POINTS", 10)
    few = FOUND.plot()
    assert len(few.axes[0].collections[0].get_offsets()) == 10
    assert "10 of 30 rows" in few.axes[0].get_xlabel()


def test_colours_of_a_swarm_are_those_of_the_column():
    figure = FOUND.plot()
    place = labels(figure).index("age")
    light = figure.axes[0].collections[place].get_facecolor()[:, :3].sum(1)
    ages = frame()["age"].to_numpy()
    assert np.corrcoef(light, ages)[0, 1] > 0.9


def test_figures_are_written_and_refused(tmp_path):
    FOUND.plot(tmp_path / "swarm.png", title="mine")
    assert (tmp_path / "swarm.png").stat().st_size > 1000
    own = Figure().subplots()
    assert FOUND[0].plot(ax=own) is own.figure
    for given, words in (({"kind": "pie"}, "kind: .*waterfall"), ({"most": 0}, "most: "),
                         ({"kind": "waterfall"}, "30 rows: choose one")):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            FOUND.plot(**given)
    with pytest.raises(ValueError, match="at least one row"):
        FOUND[:0].plot()


def test_shap(monkeypatch):
    made = types.SimpleNamespace(Explanation=lambda **given: given)
    monkeypatch.setitem(sys.modules, "shap", made)
    found = FOUND.to_shap()
    assert np.array_equal(found["values"], FOUND.values.numpy())
    assert np.array_equal(found["base_values"], FOUND.base.numpy())
    assert found["feature_names"] == list(FOUND.names)
    assert found["data"][0].tolist() == [frame().iloc[0, 0], FOUND.data("city")[0],
                                         frame().iloc[0, 3]]  # fmt: skip
    assert explained("simple-gradient").to_shap()["base_values"] is None
    assert explained(groups=None).to_shap()["data"].dtype == np.float64
    monkeypatch.setitem(sys.modules, "shap", None)
    with pytest.raises(ImportError, match="pip install shap"):
        FOUND.to_shap()


def test_shap_itself():
    shap = pytest.importorskip("shap")
    assert isinstance(FOUND.to_shap(), shap.Explanation)
    assert FOUND.to_shap()[0].values.shape == (3,)


def test_statuses():
    found = explained("sparse-moreaugrad", max_evaluations=64, tolerance=1e-4)
    assert not found.ok
    assert len(found.status) == 30
    assert found.error.shape == (30,)
    assert found.problems()[0].startswith("sample 0: ")
    assert re.search(r"and 27 more", repr(found))
    assert "did not converge" in found.plot().axes[0].get_title()
