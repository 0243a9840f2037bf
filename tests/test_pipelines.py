"""The examples of data pipelines and of a queue: what two workers compute is what a loop in one
process computes. Each is skipped where its package is not installed."""

import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import moreaugrad as mg
from moreaugrad.cli.entry import run
from processes import tree

EXAMPLES = Path(__file__).parents[1] / "examples"
parquet = pytest.importorskip("pyarrow.parquet")


def ran(name: str, folder: Path) -> None:
    """Runs an example, whose libraries find nothing of the user's and leave nothing."""
    environment = os.environ | {"HOME": str(folder / "home"), "OMP_NUM_THREADS": "1"}
    words = [sys.executable, str(EXAMPLES / f"{name}.py"), str(folder)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-5000:]


def expected(images: list[Any]) -> tuple[np.ndarray[Any, Any], list[str]]:
    """The entries of the maps of images, one after another, and statuses."""
    explain = mg.BatchExplainer(model="builtin", method="smoothgrad", settings={"samples": 4})
    found = [explain({"image": [image]}) for image in images]
    return np.stack([one["map"].ravel() for one in found]), [str(one["status"][0]) for one in found]


def check(rows: list[dict[str, Any]], images: list[Any]) -> None:
    """Up to rounding: batches are of another size, with another number of threads."""
    maps, statuses = expected(images)
    assert len(rows) == len(images) > 0
    assert [row["status"] for row in rows] == statuses
    found = np.stack([np.asarray(row["map"], dtype=np.float32).ravel() for row in rows])
    np.testing.assert_allclose(found, maps, rtol=1e-4, atol=1e-5 * np.abs(maps).max())


def cells(count: int) -> list[np.ndarray[Any, Any]]:
    data = mg.data.Cells(size=64, count=count)
    return [(data[i][0].permute(1, 2, 0).numpy() * 255).astype(np.uint8) for i in range(count)]


def read(place: Path, key: str) -> list[dict[str, Any]]:
    """Rows in order of their key."""
    rows: list[dict[str, Any]] = parquet.read_table(place).to_pylist()
    return sorted(rows, key=lambda row: row[key])


def test_two_processes_of_datasets_make_the_maps_of_a_loop(tmp_path: Path) -> None:
    pytest.importorskip("datasets")
    ran("batches_datasets", tmp_path)
    rows = read(tmp_path / "maps.parquet", "id")
    assert [row["id"] for row in rows] == list(range(16))
    check(rows, cells(16))


def test_two_workers_of_ray_make_the_maps_of_a_loop(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    ran("batches_ray", tmp_path)
    rows = read(tmp_path / "maps", "id")
    assert [row["id"] for row in rows] == list(range(16))
    check(rows, cells(16))


def test_two_workers_of_spark_make_the_maps_of_a_loop(tmp_path: Path) -> None:
    pytest.importorskip("pyspark")
    if shutil.which("java") is None:
        pytest.skip("no Java: Spark needs it")
    ran("batches_spark", tmp_path)
    files = sorted((tmp_path / "cells" / "test").rglob("*.png"))
    rows = read(tmp_path / "maps", "path")
    assert [row["path"] for row in rows] == [f"file:{file}" for file in files]
    check(rows, [file.read_bytes() for file in files])


def test_two_jobs_of_submitit_make_the_bytes_of_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("submitit")
    monkeypatch.setenv("PATH", os.fspath(Path(sys.executable).parent))  # without Slurm
    ran("array_submitit", tmp_path)
    command = runpy.run_path(str(EXAMPLES / "array_submitit.py"))["COMMAND"]
    assert run([*command[3:], "--out", str(tmp_path / "one")]) == 0
    found = tree(tmp_path / "run")
    assert found == tree(tmp_path / "one")
    assert "records.csv" in found
