"""The command that measures speed: what it writes, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch

from moreaugrad.cli.entry import run
from moreaugrad.runs.timing import network_time, timed
from tiny_models import smooth

BENCH = ["bench", "--model", "tiny_models:smooth", "--threads", "1", "--noise-samples", "4",
         "--batch", "1,2", "--seconds", "0.01"]  # fmt: skip
CPU = torch.device("cpu")


def test_each_method_and_level_is_measured_at_each_number_of_images(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "speed"
    methods = ["--methods", "simple-gradient,smoothgrad,sparse-moreaugrad"]
    assert run([*BENCH, *methods, "--levels", "preview,fine", "--out", str(out), "--json"]) == 0
    record = json.loads((out / "bench.json").read_text("utf-8"))
    assert json.loads(capsys.readouterr().out) == record
    assert record["inputs"] == "noise"
    found = {(one["method"], one["images"]): one for one in record["measured"]}
    names = ["captum NoiseTunnel", "simple-gradient", "smoothgrad", "sparse-moreaugrad, preview",
             "sparse-moreaugrad, fine"]  # fmt: skip
    assert list(found) == [(name, count) for count in (1, 2) for name in names]
    for (name, _), one in found.items():
        assert one["slowest"] <= one["rate"] <= one["fastest"], name
        assert 0 < one["in_passes"] <= 1, name
        assert one["memory"] is None or one["memory"] >= 0, name
    for count in (1, 2):
        assert found["captum NoiseTunnel", count]["relative"] == 1
        assert found["simple-gradient", count]["evaluations"] == 1
        preview, fine = (found[f"sparse-moreaugrad, {k}", count] for k in ("preview", "fine"))
        assert preview["evaluations"] <= fine["evaluations"]
    text = (out / "bench.md").read_text("utf-8")
    assert all(name in text for name in names)


def test_images_instead_of_noise(tmp_path: Path) -> None:
    command = ["bench", "--model", "builtin", "--threads", "1", "--data", "cells", "--images", "2",
               "--methods", "simple-gradient", "--batch", "1", "--seconds", "0.01",
               "--noise-samples", "2", "--quiet"]  # fmt: skip
    assert run([*command, "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "bench.json").read_text("utf-8"))["inputs"] == "images"


def test_a_benchmark_is_replaced_on_request_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*BENCH, "--methods", "simple-gradient", "--out", str(tmp_path), "--quiet"]
    assert run(command) == 0
    before = (tmp_path / "bench.json").read_bytes()
    assert run(command) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (tmp_path / "bench.json").read_bytes() == before
    assert run([*command, "--overwrite"]) == 0


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["--batch", "0"], "batch"),
        (["--seconds", "0"], "seconds"),
        (["--levels", "best"], "levels"),
        (["--methods", "smoothgrat"], "smoothgrad"),
        (["--random-weights", "--weights", "a.safetensors"], "random_weights"),
        (["--device", "cuda:77"], "device"),
    ],
)
def test_bad_input_is_one_line(
    words: list[str], expected: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*BENCH, *words, "--out", str(tmp_path / "new")]) == 2
    error = capsys.readouterr().err.strip()
    assert error.startswith("error:")
    assert "\n" not in error
    assert expected in error
    assert not (tmp_path / "new").exists()


def test_random_weights_are_not_those_of_the_source() -> None:
    from moreaugrad.runs.plans.bench import BenchModelPlan

    assert not BenchModelPlan(name="builtin", random_weights=True).arguments()["pretrained"]
    assert BenchModelPlan(name="builtin").arguments()["pretrained"]


def test_network_time_is_that_of_both_directions_and_leaves_nothing_behind() -> None:
    found = smooth()
    network = getattr(found, "module", found)
    x = torch.rand(2, 3, 16, 16, requires_grad=True)
    plain, hooks = torch.autograd.grad, len(network._forward_hooks)

    def work() -> None:
        torch.autograd.grad(network(x).sum(), x)

    with network_time(network, CPU) as inside:
        whole = timed(work, CPU)
        assert 0 < inside() <= whole
        forward = inside()
        torch.autograd.grad(x.sum(), x)
        assert inside() > forward
    assert torch.autograd.grad is plain
    assert (len(network._forward_hooks), len(network._forward_pre_hooks)) == (hooks, hooks)


def test_a_folder_that_cannot_be_made_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object) -> None:
        pytest.fail("measured before the folder was made")

    monkeypatch.setattr("moreaugrad.runs.bench.Bench.run", measured)
    (tmp_path / "file").touch()
    command = ["bench", "--model", "builtin", "--out", str(tmp_path / "file" / "x")]
    assert run(command) == 2
