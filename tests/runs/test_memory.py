"""How many images a run computes together: by their size on a CPU, by the memory of a GPU."""

import tomllib
from pathlib import Path

import pytest
import torch

import moreaugrad as mg
import tiny_models
from moreaugrad.runs.maps import setup


@pytest.mark.parametrize(
    ("side", "gigabytes", "row_bytes", "images"),
    [
        (224, None, 80_000_000, 3),  # on a CPU
        (32, None, 800_000, 64),
        (224, 80, 80_000_000, 64),
        (224, 8, 80_000_000, 11),
        (224, 8, 9_000_000_000, 1),
        (224, 80, 0, 3),  # not known
        (4, 80, 1_000, 64),  # more have room: a file has the maps of 64
    ],
)
def test_as_many_images_as_the_memory_has_room_for(
    side: int, gigabytes: int | None, row_bytes: int, images: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = None if gigabytes is None else gigabytes * 10**9
    monkeypatch.setattr(setup, "device_memory", lambda _: memory)
    assert setup.block_size(torch.zeros(1, 3, side, side), row_bytes) == images


def test_the_units_of_a_run_follow_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    model = tiny_models.smooth().module
    row_bytes = mg.SimpleGradient(model).bind(x[:1]).chunks.row_bytes
    memory = 2 * 2 * (4 * row_bytes + 64 * x[:1].nbytes)  # two images in half of it
    methods = {"smoothgrad": {"samples": 4}}
    usual = mg.explain(model, x, methods, out=tmp_path / "usual")
    monkeypatch.setattr(setup, "device_memory", lambda _: memory)
    found = mg.explain(model, x, methods, out=tmp_path / "run")
    plan = tomllib.loads((tmp_path / "run" / "config.toml").read_text("utf-8"))
    assert plan["block"] == 2
    assert len(list((tmp_path / "run" / "samples").glob("*.jsonl"))) == 3
    assert len(list((tmp_path / "usual" / "samples").glob("*.jsonl"))) == 1
    torch.testing.assert_close(found.maps, usual.maps)
