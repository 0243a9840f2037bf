"""The arithmetic of the benchmarks, on vectors whose answer is known. No timings."""

import io
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import gallery
from benchmarks.__main__ import PARTS, _chosen
from benchmarks.accuracy import floor
from benchmarks.cache import Cache
from benchmarks.context import Context
from benchmarks.gallery import Case, Column
from benchmarks.measures import (
    bounded,
    evaluations_at,
    exponent,
    jackknife,
    squared_error,
    support_iou,
    within_factor,
    zeros,
)
from benchmarks.references import Reference, Setting
from benchmarks.results import Table
from benchmarks.subjects import Subject
from PIL import Image
from torch import nn

from moreaugrad import Status, build
from moreaugrad.models import Preprocess
from moreaugrad.pictures.render import NEUTRAL


def test_a_full_name_is_one_part_and_a_beginning_is_all_of_its_parts() -> None:
    assert _chosen(["matched-resnet20"]) == ["matched-resnet20"]
    vits = ["matched-vit-gelu", "matched-vit-relu"]
    assert _chosen(["matched-vit", "caso"]) == [*vits, "caso"]
    assert _chosen([]) == list(PARTS)


def test_error_is_free_of_the_references_own_noise() -> None:
    size, truth = 40_000, torch.ones(1, 40_000, dtype=torch.float64)
    a, b, own = (torch.randn(1, size, dtype=torch.float64) for _ in range(3))
    found = squared_error(truth + 0.1 * own, truth + 0.5 * a, truth + 0.5 * b)
    # Cross terms of size 0.5^2 / sqrt(n) remain; a single reference would give 0.26.
    assert found.item() == pytest.approx(0.01, abs=4 * 0.25 / math.sqrt(size))
    assert squared_error(truth, truth, truth).item() == 0


def test_error_is_relative_and_per_sample() -> None:
    truth = torch.tensor([[3.0, 4.0], [30.0, 40.0]])
    moved = truth + torch.tensor([[0.0, 1.0], [0.0, 1.0]])
    assert squared_error(moved, truth, truth).tolist() == pytest.approx([1 / 25, 1 / 2500])


def test_support_iou_and_zeros() -> None:
    c = torch.tensor([[1.0, -2.0, 0.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    reference = torch.tensor([[5.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    assert support_iou(c, reference).tolist() == pytest.approx([1 / 3, 1.0])
    assert zeros(c).tolist() == [0.5, 1.0]


def test_jackknife_of_a_mean_is_its_standard_error() -> None:
    blocks = torch.randn(8, 3, 5, dtype=torch.float64) + 2
    expected = (blocks.var(0) / 8).sum(1).sqrt() / blocks.mean(0).norm(dim=1)
    assert jackknife(blocks, lambda mean: mean).tolist() == pytest.approx(expected.tolist())


def test_threshold_of_a_gradient_is_the_penalty_s() -> None:
    setting = Setting(rho=2.0, eta=0.5)
    gradient = torch.tensor([[2.0, -0.4, -1.5]])
    # A = -u / rho, u = soft(-rho g, rho eta): the gradient with its entries shrunk by eta.
    assert setting.map(gradient).tolist() == [[1.5, 0.0, -1.0]]
    assert setting.prox(gradient).tolist() == [[-3.0, 0.0, 2.0]]


def test_floor_is_the_error_of_a_mean_of_n_draws() -> None:
    size, setting = 4000, Setting(eta=0.0)
    # Blocks of 16 draws of a gradient whose entries are 1, each draw with noise of size 4.
    gradients = 1 + torch.randn(2, 32, size, dtype=torch.float64)
    solution = torch.ones(2, size, dtype=torch.float64)
    reference = Reference(
        a=solution,
        b=solution,
        mean=solution,
        gradient=solution,
        split=torch.zeros(2, dtype=torch.bool),
    )
    found = [floor(gradients, count, setting, reference) for count in (1, 4)]
    assert [item["rms"] for item in found] == pytest.approx([1, 0.5], rel=0.05)
    assert [item["repeats"] for item in found] == [32, 8]


def test_equal_evaluations_are_read_off_the_curve() -> None:
    sizes, errors = [512, 2048, 8192], [0.2, 0.1, 0.05]
    assert evaluations_at(0.1, sizes, errors) == pytest.approx(2048)
    assert evaluations_at(0.2 / math.sqrt(2), sizes, errors) == pytest.approx(1024)
    assert evaluations_at(0.4, sizes, errors) == pytest.approx(128)
    assert evaluations_at(0.025, sizes, errors) == pytest.approx(32768)


def test_shares_of_stated_errors() -> None:
    stated, true = torch.tensor([0.1, 0.1, 0.1, 0.1]), torch.tensor([0.04, 0.06, 0.15, 0.3])
    assert within_factor(stated, true) == 0.5
    assert bounded(stated, true) == 0.5


def test_exponent_of_a_line_and_of_a_square() -> None:
    assert exponent([1, 2, 4], [3, 6, 12]) == pytest.approx(1)
    assert exponent([1, 2, 4], [1, 4, 16]) == pytest.approx(2)


def test_cache_computes_a_piece_once(tmp_path) -> None:
    asked = []

    def compute(names):
        asked.extend(names)
        return [{"size": torch.tensor(float(len(name)))} for name in names]

    cache = Cache(tmp_path)
    first = cache.fetch("kind", {"rho": 1}, ["a", "bb"], compute, at_once=1)
    again = cache.fetch("kind", {"rho": 1}, ["bb", "ccc"], compute, at_once=1)
    assert first["size"].tolist() == [1, 2]
    assert again["size"].tolist() == [2, 3]
    cache.fetch("kind", {"rho": 2}, ["a"], compute, at_once=1)
    assert asked == ["a", "bb", "ccc", "a"]


def test_table_is_markdown() -> None:
    table = Table(caption="Errors.", header=["n", "error"], rows=[[512, 0.12345], [8, math.nan]])
    assert table.markdown().splitlines() == [
        "Errors.", "", "| n | error |", "| --- | --- |", "| 512 | 0.123 |", "| 8 | – |",
    ]  # fmt: skip


def drawn(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def test_a_gallery_shows_each_map_in_its_place() -> None:
    rows = [
        Case(name=f"n0_{label}.JPEG", target=0, label=label, probability=0.5)
        for label in ("owl", "jay")
    ]
    maps = torch.zeros(2, 3, 224, 224)
    maps[0, 0, :112] = 1.0
    spoilt = torch.full_like(maps, torch.nan)
    columns = [
        Column(
            title=title,
            maps=values,
            status=(Status.CONVERGED, status),
            error=torch.zeros(2),
            evaluations=torch.ones(2),
        )
        for title, values, status in (
            ("half", maps, Status.BUDGET_USED),
            ("none", spoilt, Status.NON_FINITE),
        )
    ]
    pixels = drawn(gallery.picture(rows, columns))
    left, top = gallery.MARGIN + gallery.LABEL, gallery.MARGIN + gallery.HEADER
    cell = pixels[top : top + gallery.CELL, left : left + gallery.CELL]
    assert cell[:50].mean() > 150 > 20 > cell[60:].mean()  # the bright half is the upper one
    second = pixels[top + gallery.CELL + gallery.FOOTER + 50, left + 50]
    other = pixels[top + 50, left + gallery.CELL + gallery.GAP + 50]
    assert second == pytest.approx(NEUTRAL, abs=4)  # zero everywhere
    assert other == pytest.approx(NEUTRAL, abs=4)
    assert columns[0].described(0) == ("83.3\u202f% zero", "")
    assert columns[0].described(1) == ("100\u202f% zero", "budget used")
    # Many places of .4, few of 1: the former have the last colour, or a lower one.
    rare = torch.zeros(2, 1, 224, 224)
    rare[..., :112], rare[..., :4, :4] = 0.4, 1.0
    usual, whole = (
        drawn(gallery.picture(rows, [replace(columns[0], maps=rare, percentile=percentile)]))
        for percentile in (99.0, 100.0)
    )
    assert usual[top + 50, left + 10].sum() > whole[top + 50, left + 10].sum() + 100
    photos = [np.full((224, 224, 3), 0.5)] * 2
    wider = drawn(gallery.picture(rows, columns, photos))
    assert wider.shape[1] - pixels.shape[1] == gallery.CELL + gallery.GAP
    assert wider[top + 50, left + 50] == pytest.approx([128] * 3, abs=1)


def test_a_gallery_of_many_columns_has_several_images(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 3), nn.Tanh())
    network.eval().requires_grad_(False)
    shown = Image.effect_noise((2, 2), 50).convert("RGB")
    subject = Subject(
        name="toy", module=network, fast=network, weights="0", labels=("a", "b", "c"),
        preprocess=Preprocess(resize=2, crop=2, mean=(0.5,) * 3, std=(0.5,) * 3),
        names=("one", "two"), read=lambda _: shown, chunk=4, published_steps=1,
    )  # fmt: skip
    context = Context(out=tmp_path, cache=Cache(tmp_path), quick=True, threads=1)
    rows = gallery.cases(subject, [("one", 0), ("two", 2)])
    probabilities = network(subject.inputs(["one"])).softmax(1)[0]
    assert rows[0].probability == pytest.approx(float(probabilities.max()))
    assert rows[1].probability == pytest.approx(float(probabilities.min()))
    made = [
        gallery.column(context, subject, rows, name, keep=0.5) for name in ("sparse-gradient",) * 3
    ]
    assert torch.equal(made[0].maps, made[1].maps)  # out of the cache
    expected = build("sparse-gradient", network, keep=0.5).attribute(
        subject.inputs(["one", "two"]), target=[row.target for row in rows]
    )
    torch.testing.assert_close(made[0].maps, expected)
    result = gallery.result(
        context, subject, rows, made, name="toys", title="Toys", settings={}, band=2
    )
    assert list(result.pictures) == ["toys-1.png", "toys-2.png"]
    assert result.figures["rows"][0]["class"] == rows[0].label
    assert result.tables[0].rows[0][0] == "sparse-gradient"
