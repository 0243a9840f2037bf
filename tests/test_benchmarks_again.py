"""The arithmetic of benchmarks that train networks again, redraw their weights and climb scores."""

import io
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.training_again import rows, similarity
from benchmarks.training_diffroar import _accuracies, _differences
from benchmarks.training_features import COLOURS, sheet
from benchmarks.training_labels import _sizes, weak
from benchmarks.training_rows import STUDIES
from benchmarks.training_sanity import SHOWN, _table, cascade
from benchmarks.training_sanity import similarity as by_block
from benchmarks.training_stability import METRICS, SHARES
from benchmarks.training_stability import _table as stability_table
from PIL import Image
from torch import nn

from moreaugrad import SimpleGradient
from moreaugrad.metrics import randomisation
from moreaugrad.metrics.sanity import CASCADING
from moreaugrad.models import LoadedModel, Preprocess


def row(mean: float | None, undefined: int = 0, **keys: Any) -> dict[str, Any]:
    span = {"low": None, "high": None} if mean is None else {"low": mean - 0.1, "high": mean + 0.1}
    return {"mean": mean, "undefined": undefined, **span, **keys}


def test_the_first_setting_of_each_penalty_is_trained_again_once() -> None:
    found = rows("plain", "elastic net")
    assert [each.label for each in found] == ["plain", "elastic net"]
    assert found[1].protocol == next(
        each.protocol for each in STUDIES["cells"].rows if each.label == "elastic net"
    )
    assert all(list(each.seeds) == [0] for each in found)


def test_differences_stand_beside_the_papers() -> None:
    order = {"top": [[0.5, 0.7], [0.9, 0.9]], "bottom": [[0.4, 0.4], [0.5, 0.7]],
             "by_level": [0.2, 0.3], "mean": 0.25, "low": -0.05, "high": 0.55}  # fmt: skip
    orders = {"plain": order, "random": order | {"low": None, "high": None}}
    found = _differences(orders, {"plain": (0.881, 0.65)}, (0.2, 0.8))
    assert found.header[3:5] == ["20 % kept", "80 % kept"]
    assert list(found.rows[0]) == [
        "plain", "88.1", "0.650", "20.0", "30.0", "25.0", "-5.0 to 55.0", 1.81,
    ]  # fmt: skip
    assert list(found.rows[1]) == ["random", "–", "–", "20.0", "30.0", "25.0", "–", "–"]
    assert list(_accuracies(orders, (0.2, 0.8)).rows[0]) == ["plain", "60.0 / 40.0", "90.0 / 60.0"]


def test_similarity_reports_its_interval_and_what_has_no_value() -> None:
    assert similarity(row(0.5)) == "0.500 [0.400, 0.600]"
    assert similarity(row(0.5, 3)) == "0.500 [0.400, 0.600], 3 without"
    assert similarity(row(None, 7)) == "none of 7"


def test_stability_is_reported_by_what_was_exchanged() -> None:
    values = iter(range(100))
    described = [
        row(next(values) / 10, group=share, method="simple-gradient", metric=metric)
        for share in SHARES
        for metric in METRICS
    ]
    networks = [{"accuracy": 0.875}, {"accuracy": 0.85}]
    found = stability_table({"plain": {"similarity": described[::-1], "networks": networks}})
    (line,) = found.rows
    assert line[:2] == ["plain", "simple-gradient"]
    assert [cell.partition(" ")[0] for cell in line[2:-1]] == [f"{i / 10:.3f}" for i in range(6)]
    assert line[-1] == "85.0 to 87.5"
    assert found.header[2] == "ssim, other seed"
    assert found.header[5] == "ssim, and 10 % other images"


def test_permuted_labels_that_are_not_learnt_are_reported() -> None:
    def study(*accuracies: float) -> dict[str, Any]:
        networks = [{"permuted": True, "training_accuracy": each} for each in accuracies]
        return {"networks": [{"permuted": False, "training_accuracy": 0.5}, *networks]}

    (note,) = weak({"plain": study(0.95, 1.0), "elastic net": study(0.97, 0.2)})
    assert note.startswith("elastic net:")
    assert "97.0, 20.0 %" in note


def test_lengths_of_maps_and_blank_ones() -> None:
    maps = torch.zeros(4, 3, 2, 2)
    maps[0, 0, 0, 0], maps[1, 2, 1, 1] = 3.0, -1.0
    assert _sizes(maps) == {"length": 1.0, "blank": 0.5}


def test_stages_of_the_cascade_are_those_that_are_measured() -> None:
    layers = [layer for _ in range(8) for layer in (nn.Conv2d(3, 3, 3, padding=1), nn.SiLU())]
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(192, 4))
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 1])
    measured = randomisation(
        module, lambda m: SimpleGradient(m), x, target, mode=CASCADING, seeds=(0,),
        similarities={"gap": lambda a, b: (a - b).flatten(1).norm(dim=1)},
    )  # fmt: skip
    loaded = LoadedModel(
        module=module, preprocess=Preprocess(mean=(0.0,) * 3, std=(1.0,) * 3), labels=None
    )
    found = cascade(loaded, x, target, list(measured.blocks))
    assert len(measured.blocks) == 9
    assert len(found) == SHOWN
    assert list(found)[-1] == "9 redrawn"
    own = found["network"]
    assert torch.equal(own, SimpleGradient(module).attribute(x, target))
    for title, maps in found.items():
        if title != "network":
            stage = int(title.partition(" ")[0]) - 1
            gap = (own - maps).flatten(1).norm(dim=1)
            assert gap.tolist() == pytest.approx(measured.similarity["gap"][0, stage].tolist())


def test_blocks_stand_in_the_order_of_the_redrawing() -> None:
    rows = STUDIES["cells"].rows[:2]
    found = {
        each.label: {
            "similarity": [
                {"mode": mode, "block": block, "metric": metric, "mean": mean, "undefined": lost}
                for mode in ("cascading", "independent")
                for metric in ("ssim", "spearman", "spearman-signed")
                for block, mean, lost in (("head", 0.25, 0), ("first", None, 6))
            ]
        }
        for each in rows
    }
    assert list(by_block(found["plain"], CASCADING)) == ["head", "first"]
    table = _table(found, CASCADING, "cells", list(rows))
    assert [line[0] for line in table.rows] == ["head", "first"]
    assert list(table.rows[0][1:]) == ["0.250"] * 6
    assert list(table.rows[1][1:]) == ["– (6)"] * 6


def test_a_sheet_has_each_image_in_its_place() -> None:
    shades = [[np.full((48, 48, 3), 40 * (3 * i + j), dtype=np.uint8) for j in range(3)]
              for i in range(2)]  # fmt: skip
    png = sheet(["plain", "L1"], ["0-plain-cell", "1-cell-with-a-bar", "dog"], shades)
    found = np.asarray(Image.open(io.BytesIO(png)).convert("L")).astype(int)
    assert len(Image.open(io.BytesIO(png)).getcolors() or ()) <= COLOURS + 16
    for i in range(2):
        for j in range(3):
            middle = found[34 + i * 100 + 48, 110 + j * 100 + 48]
            assert middle == pytest.approx(120 * i + 40 * j, abs=8)
