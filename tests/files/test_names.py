"""Numbers in names: whatever becomes a file, a key, a column or a group, no two share one."""

import math
import tomllib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from moreaugrad.cli.entry import run
from moreaugrad.files.foreign import number_name, percent_name
from moreaugrad.reports import Sweep, Tile
from moreaugrad.reports.folder import tensor_name
from moreaugrad.reports.tables import table_title
from moreaugrad.reports.wording import setting
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.maps.attacks import BudgetedAttack
from moreaugrad.runs.maps.methods import swept
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.common import ComputePlan, DataPlan, ModelPlan
from moreaugrad.runs.plans.explain import SweepPlan
from moreaugrad.runs.plans.retrain import DiffRoarPlan
from moreaugrad.runs.retrain.diffroar import Masking
from moreaugrad.runs.retrain.pairs import Arm

CLOSE = [0.1234567, 0.1234568, math.nextafter(0.1234567, 1), 0.1, math.nextafter(0.1, 1), 0.101]
USUAL = {
    0.0: "0", 1.0: "1", 0.5: "0.5", 0.1: "0.1", 1e-8: "1e-08", 100.0: "100", 1234567.0: "1234567",
    2.0**60: "1.152921504606847e+18", -0.25: "-0.25",
}  # fmt: skip


@pytest.mark.parametrize("value", USUAL)
def test_numbers_have_their_shortest_names(value: float) -> None:
    assert number_name(value) == USUAL[value]
    assert number_name(np.float64(value)) == USUAL[value]


@pytest.mark.parametrize("value", [*CLOSE, *USUAL, 1e-300, 1 / 3, 5e-324, 1.7e308])
def test_names_of_numbers_read_back_as_the_same(value: float) -> None:
    assert float(number_name(value)) == value


@pytest.mark.parametrize(
    ("fraction", "name"),
    [(0.0, "0"), (1.0, "100"), (0.1, "10"), (0.07, "7"), (0.101, "10.1"), (1e-7, "0.00001")],
)
def test_fractions_in_percent(fraction: float, name: str) -> None:
    assert percent_name(fraction) == name


PLACES = {
    "a fraction in percent": percent_name,
    "a map's key": lambda v: tensor_name(3, "top-k", v, "map"),
    "an attack": lambda v: BudgetedAttack(label="top-k", epsilon=v, attack=None).title,
    "a table": lambda v: table_title("top-k", v),
    "a frame of a sweep": lambda v: setting(
        Sweep(parameter="rho", values=[v], tiles=[Tile(title="", views={}, status="")]), v
    ),
    "a training on masks": lambda v: Masking("random", "top", v, 0).name,
    "a training with exchanged images": lambda v: Arm(0, v).name,
    "a row of networks": lambda v: Arm(0, v).title,
}


@pytest.mark.parametrize("place", PLACES)
def test_no_two_numbers_have_one_name(place: str) -> None:
    assert len({PLACES[place](value) for value in CLOSE}) == len(CLOSE)


def test_no_two_values_of_a_sweep_have_one_file(tmp_path: Path) -> None:
    plan = SweepPlan(method="moreaugrad", over="rho", values=tuple(CLOSE))
    network = Network.load(ModelPlan(name="tiny_models:smooth"), ComputePlan(device="cpu"))
    Image.fromarray(np.full((16, 16, 3), 99, np.uint8)).save(tmp_path / "0.png")
    inputs = Inputs.open(DataPlan(files=(str(tmp_path / "0.png"),)), 0, network)
    _, found = swept(plan, {}, 0, network, None, inputs.first(network), inputs)
    assert len({method.label for method in found}) == len(CLOSE)
    assert [method.label.partition("=")[2] for method in found] == sorted(map(repr, CLOSE))
    torch.testing.assert_close(
        [method.explainer.rho for method in found], sorted(CLOSE), rtol=0, atol=0
    )


def test_a_sweep_over_close_values_keeps_all_maps(tmp_path: Path) -> None:
    Image.fromarray(np.full((16, 16, 3), 99, np.uint8)).save(tmp_path / "0.png")
    command = ["sweep", str(tmp_path / "0.png"), "--model", "tiny_models:smooth", "--over", "rho",
               "--method", "moreaugrad", "-q", "--out", str(tmp_path / "run")]  # fmt: skip
    assert run([*command, "--values", "0.1234567,0.1234568"]) == 0
    names = sorted(path.name for path in (tmp_path / "run" / "inputs").rglob("*.safetensors"))
    assert names == [f"moreaugrad.rho={value}.safetensors" for value in CLOSE[:2]]
    config = tomllib.loads((tmp_path / "run" / "config.toml").read_text(encoding="utf-8"))
    assert config["sweep"]["values"] == CLOSE[:2]
    page = (tmp_path / "run" / "index.html").read_text(encoding="utf-8")
    assert all(f'data-setting="rho = {value}"' in page for value in CLOSE[:2])


@pytest.mark.parametrize("label", ["random", "all", "ids", "fill", "a/b", "..", ""])
def test_methods_are_not_called_like_files_of_a_study(label: str) -> None:
    with pytest.raises(ValueError, match="cannot be a label"):
        DiffRoarPlan(explained="run", methods={label: {}})
