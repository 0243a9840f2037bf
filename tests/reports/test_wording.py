"""Numbers in words and means over inputs."""

import math

import pytest

from moreaugrad.metrics.catalogue import heading
from moreaugrad.pictures.wording import count, duration, number, percent, score
from moreaugrad.reports import Answer, Section, Tile
from moreaugrad.reports.tables import summary_table


def plain(text):
    return text.replace("\u202f", " ")


@pytest.mark.parametrize(
    ("share", "words"),
    [
        (0, "0 %"),
        (1, "100 %"),
        (0.973, "97.3 %"),
        (0.99996, "> 99.9 %"),
        (0.00002, "< 0.1 %"),
        (1.5, "150 %"),
        (math.inf, "∞"),
    ],
)
def test_shares(share, words):
    assert plain(percent(share)) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0, "0"),
        (0.00123, "0.00123"),
        (-2.5, "−2.5"),
        (1.5e-7, "1.5 × 10⁻⁷"),
        (-3e12, "−3 × 10¹²"),
        (math.nan, "undefined"),
        (-math.inf, "−∞"),
    ],
)
def test_numbers(value, words):
    assert plain(number(value)) == words


def test_counts_durations_and_scores():
    assert plain(count(1234567)) == "1 234 567"
    assert plain(duration(0.0421)) == "42 ms"
    assert plain(duration(59.96)) == "60.0 s"
    assert plain(duration(185)) == "3 min 5 s"
    assert plain(duration(0.9996)) == "1.0 s"
    assert plain(duration(179.7)) == "3 min 0 s"
    assert plain(duration(3 * 3600)) == "3.0 h"
    assert [score(0.5), score(-0.25), score(math.nan)] == ["0.500", "−0.250", "undefined"]


def tile(title, **given):
    return Tile(title=title, views={}, status="converged", **given)


def test_summary_averages_what_is_defined():
    sections = [
        Section(
            title="a",
            tiles=[
                tile("one", zeros=0.5, scores={"AUROC": 0.5}),
                tile("two", ok=False, scores={"AUROC": 0.75}),
            ],
        ),
        Section(
            title="b",
            tiles=[
                tile("one", zeros=1.0, scores={"AUROC": math.nan}),
                tile("two", evaluations=10, scores={"AUROC": 0.25}),
            ],
        ),
    ]
    found = summary_table(sections)
    assert found.title == "Mean over 2 inputs"
    assert found.columns == ["usable", "AUROC", "zeros", "evaluations"]
    rows = dict(found.rows)
    assert [plain(cell.text) for cell in rows["one"]] == ["2 of 2", "0.500", "75.0 %", ""]
    assert [plain(cell.text) for cell in rows["two"]] == ["1 of 2", "0.500", "", "10"]
    assert [cell.note for cell in rows["one"]] == ["", "1 undefined", "", ""]
    assert [rows[name][1].best for name in ("one", "two")] == [True, True]
    assert list(rows) == ["one", "two"]


def test_summary_keeps_networks_apart():
    first = Section(
        title="a",
        network="ordinary",
        tiles=[tile("one", gini=0.5)],
        compared=Answer(
            network="sparse", tiles=[tile("one", gini=0.75), tile("two", gini=math.nan)]
        ),
    )
    second = Section(title="b", network="ordinary", tiles=[tile("two"), tile("one", gini=0.625)])
    found = summary_table([first, second])
    assert found.columns == ["usable", "Gini"]
    assert [(label, [cell.text for cell in cells]) for label, cells in found.rows] == [
        ("ordinary, one", ["2 of 2", "0.562"]),
        ("ordinary, two", ["1 of 1", ""]),
        ("sparse, one", ["1 of 1", "0.750"]),
        ("sparse, two", ["1 of 1", ""]),
    ]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("auroc", "AUROC"),
        ("average-precision", "average precision"),
        ("aopc-lerf", "AOPC LeRF"),
        ("top-k-ties", "top-k ties"),
        ("five-band-false-positive-rate", "five-band false-positive rate"),
        ("my-gini", "my-gini"),
    ],
)
def test_metrics_have_headings(label, expected):
    assert heading(label) == expected
