"""Quality levels on the command line: which methods take one, what is kept, and what it costs."""

import json
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import moreaugrad as mg
import tiny_models
from moreaugrad.cli.entry import run
from moreaugrad.runs.cost import Cost, Estimate, method_costs
from moreaugrad.runs.maps.run import MapsRun
from moreaugrad.runs.plans.common import ComputePlan, DataPlan, ModelPlan
from moreaugrad.runs.plans.explain import ExplainPlan

LEVELS = ("preview", "standard", "fine")
MODEL = ["--model", "tiny_models:smooth"]
OTHERS = {"caso": 1e-4, "integrated-gradients": 0.05}
"""Methods with a tolerance that is no Monte-Carlo error, and their default."""
Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "300")
    return tmp_path


@pytest.fixture
def command(capsys: pytest.CaptureFixture[str]) -> Command:
    def done(*words: str) -> tuple[int, str, str]:
        code = run(list(words))
        shown = capsys.readouterr()
        return code, shown.out, shown.err

    return done


def explain(*words: str, photos: str = "photos/0.png", out: str = "out") -> list[str]:
    return ["explain", photos, *MODEL, "--out", out, *words]


def repeated(name: str, folder: str, out: str, *more: str) -> list[str]:
    """The command by a folder's configuration, with other options."""
    return [name, "--config", f"{folder}/config.toml", "--trust", "--out", out, *more]


def tolerances(out: str = "out") -> dict[str, Any]:
    config = tomllib.loads(Path(out, "config.toml").read_text(encoding="utf-8"))
    return {label: own.get("tolerance") for label, own in config["methods"].items()}


FAMILY = "sparse-moreaugrad,moreaugrad-plain"
METHODS = f"{FAMILY},{','.join(OTHERS)},smoothgrad"


@pytest.mark.parametrize("option", ["--quality", "--tolerance"])
def test_a_level_is_for_the_methods_that_have_levels(command: Command, option: str) -> None:
    assert command(*explain(option, "preview", "--methods", METHODS))[0] == 0
    family = dict.fromkeys(FAMILY.split(","), "preview")
    assert tolerances() == {**family, **OTHERS, "smoothgrad": None}


def test_a_number_is_for_all_that_have_a_tolerance(command: Command) -> None:
    methods = "moreaugrad,integrated-gradients,smoothgrad"
    assert command(*explain("--quality", "0.5", "--methods", methods))[0] == 0
    assert tolerances() == {"moreaugrad": 0.5, "integrated-gradients": 0.5, "smoothgrad": None}


@pytest.mark.parametrize(
    "own", ["moreaugrad.tolerance=0.4", "moreaugrad.tolerance=fine"], ids=["number", "level"]
)
def test_a_method_s_own_setting_goes_first(command: Command, own: str) -> None:
    given = explain(
        "--methods", "moreaugrad,sparse-moreaugrad", "--set", own, "--quality", "preview"
    )
    assert command(*given)[0] == 0
    value = own.partition("=")[2]
    assert tolerances() == {
        "moreaugrad": 0.4 if value == "0.4" else value, "sparse-moreaugrad": "preview",
    }  # fmt: skip


def test_the_settings_of_all_may_follow_those_of_one(command: Command) -> None:
    given = ["--set", "moreaugrad.tolerance=0.4", "--set", "tolerance=preview"]
    assert command(*explain("--methods", "moreaugrad,sparse-moreaugrad", *given))[0] == 0
    assert tolerances() == {"moreaugrad": 0.4, "sparse-moreaugrad": "preview"}


def test_another_quality_is_another_configuration(command: Command) -> None:
    given = explain("--method", "moreaugrad", "--quality", "preview")
    assert command(*given)[0] == 0
    maps = Path("out/inputs/0/moreaugrad.safetensors").read_bytes()
    assert command(*given)[0] == 0
    assert Path("out/inputs/0/moreaugrad.safetensors").read_bytes() == maps
    code, _, err = command(*explain("--method", "moreaugrad", "--quality", "fine"))
    assert code == 2
    assert "methods.moreaugrad.tolerance is preview there, fine here" in err
    # The default is the level standard, also by its name.
    assert command(*explain("--method", "moreaugrad", out="usual"))[0] == 0
    assert command(*explain("--method", "moreaugrad", "--quality", "standard", out="usual"))[0] == 0


def test_it_replaces_what_a_configuration_has(command: Command) -> None:
    methods = "moreaugrad,caso,smoothgrad"
    own = ["--set", "moreaugrad.tolerance=0.2", "--set", "caso.tolerance=0.001"]
    assert command(*explain("--methods", methods, *own))[0] == 0
    again = repeated("explain", "out", "again", "--quality", "preview")
    assert command(*again)[0] == 0
    assert tolerances("again") == {"moreaugrad": "preview", "caso": 0.001, "smoothgrad": None}


def test_so_do_other_settings_of_all_methods_and_of_a_sweep(command: Command) -> None:
    sweep = ["sweep", "photos/0.png", *MODEL, "--method", "smoothgrad", "--over", "sigma",
             "--values", "0.1,0.2", "--noise-samples", "4", "--out", "swept"]  # fmt: skip
    assert command(*sweep)[0] == 0
    again = repeated("sweep", "swept", "again", "--noise-samples", "6")
    assert command(*again)[0] == 0
    config = tomllib.loads(Path("again/config.toml").read_text(encoding="utf-8"))
    assert config["sweep"]["settings"]["samples"] == 6
    assert command(*explain("--method", "smoothgrad", "--noise-samples", "4"))[0] == 0
    again = repeated("explain", "out", "more", "--noise-samples", "6")
    assert command(*again)[0] == 0
    config = tomllib.loads(Path("more/config.toml").read_text(encoding="utf-8"))
    assert config["methods"]["smoothgrad"]["samples"] == 6


@pytest.mark.parametrize("methods", [METHODS, ",".join(OTHERS), "smoothgrad"])
def test_a_bad_name_lists_the_levels(command: Command, methods: str) -> None:
    code, _, err = command(*explain("--quality", "medium", "--methods", methods))
    (line,) = err.strip().splitlines()
    assert code == 2
    assert all(word in line for word in (*LEVELS, "'medium'", "--tolerance"))
    assert not Path("out").exists()


def test_methods_without_levels_refuse_one(command: Command) -> None:
    code, _, err = command(*explain("--quality", "fine", "--methods", "caso,smoothgrad"))
    (line,) = err.strip().splitlines()
    assert code == 2
    assert all(word in line for word in ("caso", "smoothgrad", "no quality levels", "fine"))


def test_the_help_says_whom_it_is_for(command: Command) -> None:
    for name in ("explain", "compare", "sweep", "evaluate", "sanity"):
        words = " ".join(command(name, "--help")[1].split())
        assert "--quality" in words
        assert all(f"{level} (" in words for level in LEVELS)
        assert "MoreauGrad family" in words


# What it costs.


def plan(**methods: dict[str, Any]) -> ExplainPlan:
    return ExplainPlan(
        data=DataPlan(files=("photos",)), model=ModelPlan(name="tiny_models:kinked"),
        compute=ComputePlan(device="cpu", threads=1), methods=methods,
    )  # fmt: skip


def test_levels_are_estimated_by_the_error_after_a_few_steps() -> None:
    found = MapsRun(plan(smoothgrad={}, moreaugrad={"tolerance": "fine", "draws": 4}))
    network, explainer = found.network, found.setup.methods[1].explainer
    few = torch.cat([found.inputs.input(one, network)[None] for one in found.inputs.chosen[:4]])
    short = mg.MoreauGrad(
        explainer.forward_func, max_evaluations=32, draws=4, centre=False, tolerance=1e-9
    ).explain(few)
    made = found.estimate()
    smooth, moreau = made.costs
    assert (moreau.level, smooth.level, smooth.expected) == ("fine", None, {})
    for level, tolerance, most in zip(
        LEVELS, (0.3, 0.1, 0.03), (16384, 16384, 182044), strict=True
    ):
        each = [min(most, max(16, 32 * (error / tolerance) ** 2)) for error in short.error.tolist()]
        assert moreau.expected[level] == pytest.approx(sum(each) / 4)
    assert [level.level for level in made.levels if level.chosen] == ["fine"]
    for level in made.levels:
        seconds = made.seconds_per_evaluation * 5 * (64 + moreau.expected[level.level])
        assert level.seconds == pytest.approx(seconds)
        assert level.evaluations == moreau.expected[level.level]


def test_maps_under_an_attack_add_its_evaluations() -> None:
    explainer = mg.MoreauGrad(tiny_models.kinked().module)
    few = [torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(0))]
    most = explainer.budget()
    rows = [("clean", 2, most), ("attacked", 3, most + 100), ("does not suit", 3, 0)]
    clean, attacked, none = method_costs(explainer, None, few, 0.5, rows)
    assert attacked.expected == {level: 100 + n for level, n in clean.expected.items()}
    assert none.expected == {}
    made = Estimate.of(3, [clean, attacked, none, Cost.of("b", 3, 40, 0.5)], torch.device("cpu"))
    for level in made.levels:
        each = clean.expected[level.level]
        assert level.evaluations == pytest.approx((2 * each + 3 * (100 + each)) / 5)
        assert level.seconds == pytest.approx(0.5 * (2 * each + 3 * (100 + each) + 3 * 40))


def test_no_level_is_chosen_by_a_number_or_by_several() -> None:
    for given in ({"tolerance": 0.3}, {"tolerance": "fine"}):
        mixed = plan(**{"moreaugrad": given, "sparse-moreaugrad": {"tolerance": "preview"}})
        made = MapsRun(mixed).estimate()
        assert len(made.levels) == 3
        assert not any(level.chosen for level in made.levels)


@pytest.mark.parametrize("name", ["explain", "evaluate", "sanity"])
def test_a_dry_run_reports_each_level(command: Command, name: str) -> None:
    source = ["photos/0.png"] if name == "explain" else ["--data", "photos"]
    given = [name, *source, *MODEL, "--method", "moreaugrad", "--quality", "preview", "--dry-run"]
    code, out, _ = command(*given)
    assert code == 0
    rows = [line for line in out.splitlines() if line.startswith(LEVELS)]
    assert [row.split()[0] for row in rows] == list(LEVELS)
    assert ["chosen" in row for row in rows] == [True, False, False]
    assert all("GB" in row for row in rows)
    code, out, _ = command(*given, "--json")
    found = json.loads(out)
    assert [level["level"] for level in found["levels"]] == list(LEVELS)
    assert [level["chosen"] for level in found["levels"]] == [True, False, False]
    evaluations = [level["evaluations"] for level in found["levels"]]
    assert 0 < evaluations[0] <= evaluations[1] < evaluations[2] < found["evaluations"]
    assert found["memory"] > 1e6


def test_without_levels_there_are_none_to_report(command: Command) -> None:
    code, out, _ = command(*explain("--methods", "smoothgrad,moreaugrad-plain", "--dry-run"))
    assert code == 0
    assert not any(level in out for level in LEVELS)
    code, out, _ = command(*explain("--methods", "smoothgrad", "--dry-run", "--json"))
    assert json.loads(out)["levels"] == []


# Maps that used up their evaluations.


@pytest.mark.parametrize("name", ["explain", "evaluate"])
def test_one_line_says_what_it_would_take(command: Command, name: str) -> None:
    source = ["photos"] if name == "explain" else ["--data", "photos"]
    code, _, err = command(
        name, *source, *MODEL, "--methods", "moreaugrad,smoothgrad", "--tolerance", "0.0001",
        "--max-evaluations", "64", "--out", "out",
    )  # fmt: skip
    assert code == 0
    (line,) = (line for line in err.splitlines() if "max_evaluations" in line)
    records = [json.loads(row) for file in Path("out/methods/moreaugrad").glob("*.jsonl")
               for row in file.read_text(encoding="utf-8").splitlines()]  # fmt: skip
    maps = [record["map"] for record in records]
    needed = [one["evaluations"] * (one["error"] / 0.0001) ** 2 for one in maps]
    assert len(maps) == 5
    assert (
        f"5 of 5 maps of moreaugrad, at a median error of {100 * maps_median(maps):.2g} %" in line
    )
    assert f"about {float(f'{max(needed):.2g}'):.0f} would" in line


def maps_median(maps: list[dict[str, Any]]) -> float:
    return sorted(one["error"] for one in maps)[len(maps) // 2]
