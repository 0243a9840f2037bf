"""Parts that installed packages declare as entry points, and Captum's, by command."""

import json
import sys
import tomllib

import pytest
import torch

import moreaugrad as mg
from moreaugrad.attacks import ATTACKS
from moreaugrad.metrics import METRICS
from moreaugrad.registry import UnknownName

NETWORK = ("--model", "tiny_models:smooth")
CODE = '''
"""Parts of another package."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from moreaugrad.attacks.baselines import GaussianNoiseAttack
from moreaugrad.explainers.gradient import SimpleGradient

Path(__file__).with_name("ran").touch()


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Tripled(SimpleGradient):
    """The gradient times three."""

    factor: float = 3.0

    method: ClassVar[str] = "tripled"

    def _maps(self, bound):
        found = super()._maps(bound)
        return replace(found, values=self.factor * found.values)


@dataclass(frozen=True, kw_only=True, eq=False)
class Quiet(GaussianNoiseAttack):
    """Noise of another package."""

    name: ClassVar[str] = "quiet"


def peak(maps):
    """Largest magnitude."""
    return maps.flatten(1).abs().amax(1).double()
'''
DECLARED = """
[moreaugrad.methods]
tripled = shiny_parts:Tripled
smoothgrad = shiny_parts:Tripled
broken = shiny_absent:Nothing
failing = shiny_broken:Anything
not-a-method = shiny_parts:peak
a.b = shiny_parts:Tripled
odd = shiny_parts

[moreaugrad.attacks]
quiet = shiny_parts:Quiet

[moreaugrad.metrics]
peak = shiny_parts:peak
"""


def install(folder, package, declared):
    made = folder / f"{package}-1.2.dist-info"
    made.mkdir()
    (made / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (made / "entry_points.txt").write_text(declared)


@pytest.fixture
def shiny(tmp_path, monkeypatch):
    """An installed package with good and broken parts; its folder."""
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "shiny_parts.py").write_text(CODE)
    (folder / "shiny_broken.py").write_text("raise RuntimeError('it rains')")
    install(folder, "shiny", DECLARED)
    install(folder, "zebra", "[moreaugrad.methods]\ntripled = zebra:Tripled\n")
    install(folder, "damaged", "")
    (folder / "damaged-1.2.dist-info" / "entry_points.txt").write_bytes(b"\xff\xfe[a]\nb = c")
    monkeypatch.syspath_prepend(str(folder))
    yield folder
    for name in ("shiny_parts", "shiny_broken"):
        sys.modules.pop(name, None)


def test_their_names_work_and_load_when_used(shiny):
    assert "tripled" not in mg.METHODS, "the library's own are listed"
    assert mg.METHODS.check("tripled") == "tripled"
    assert {"tripled", "broken"} <= mg.METHODS.plugins().parts.keys()
    assert not (shiny / "ran").exists()
    x, model = torch.randn(2, 3, 16, 16), mg.load_model("tiny_models:smooth").module
    tripled = mg.build("tripled", model)
    torch.testing.assert_close(tripled.attribute(x), 3 * mg.SimpleGradient(model).attribute(x))
    assert mg.METHODS["tripled"].summary == "The gradient times three."
    assert mg.attacks.build("quiet", tripled, epsilon=0.5).attack(x).status
    assert float(mg.metrics.build("peak")(-2 * torch.ones(1, 3))) == 2
    assert METRICS["peak"].kind == "map"
    with pytest.raises(ValueError, match="did you mean 'factor'"):
        mg.build("tripled", model, faktor=1.0)


def test_a_broken_one_is_an_error_of_its_own(shiny):
    for name, words in {
        "broken": "broken of shiny 1.2.*no module",
        "failing": "failing of shiny 1.2.*it rains",
        "not-a-method": "not-a-method of shiny 1.2.*derived from Explainer",
        "a.b": "expected one of",
        "odd": "expected one of",
        "tripple": "did you mean 'tripled'",
    }.items():
        with pytest.raises(ValueError, match=words):
            mg.build(name, None)
    assert mg.METHODS["smoothgrad"].load() is mg.SmoothGrad, "ours comes first"
    with pytest.raises(UnknownName):
        ATTACKS["tripled"]
    notes = "\n".join(mg.METHODS.plugins().notes)
    for words in ("smoothgrad of shiny 1.2 is ignored", "tripled of zebra 1.2", "a.b of", "odd of"):
        assert words in notes


def test_the_working_folder_does_not_replace_their_code(shiny, tmp_path, monkeypatch):
    other = tmp_path / "work"
    other.mkdir()
    (other / "shiny_parts.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.chdir(other)
    assert mg.METHODS["tripled"].load().__name__ == "Tripled"


def test_methods_lists_them_with_a_note_on_each_that_is_left_out(command, shiny):
    done = command("methods")
    assert done.code == 0, done
    for words in ("tripled", "Of shiny 1.2, attack quiet", "Of shiny 1.2, metric peak", "captum:"):
        assert words in done.out
    notes = [line for line in done.err.splitlines() if line.startswith("note:")]
    assert len(notes) == len(done.err.splitlines()) == 7, done.err
    for name in ("broken", "failing", "not-a-method", "smoothgrad", "tripled", "a.b", "odd"):
        assert sum(f"method {name} of" in note for note in notes) == 1, name
    assert "tripled" in json.loads(command("methods", "--json").out)
    assert "factor = 3.0" in command("methods", "tripled").out


def test_evaluate_and_report(command, photos, shiny):
    words = (
        "evaluate", "--data", "data", "--images", "2", *NETWORK, "--methods",
        "tripled,simple-gradient", "--metrics", "peak,gini", "--attack", "quiet", "--epsilons",
        "0.5", "--set", "tripled.factor=2", "--out", "results",
    )  # fmt: skip
    done = command(*words)
    assert done.code == 0, done
    config = tomllib.loads((photos / "results" / "config.toml").read_text())
    assert config["methods"]["tripled"]["factor"] == 2.0
    sys.modules.pop("shiny_parts")
    (shiny / "ran").unlink()
    assert command("report", "results", "--out", "results/page").code == 0
    assert not (shiny / "ran").exists(), "a report runs no code"
    assert (
        command("evaluate", "--config", "results/config.toml", "--out", "results", *NETWORK).code
        == 0
    )


def test_captums_by_command(command, photos):
    words = (
        "evaluate", "--data", "data", "--images", "2", *NETWORK, "--methods",
        "simple-gradient,captum:Occlusion,captum:GradientShap", "--metrics", "gini,top-k",
        "--attack", "gaussian", "--attack", "top-k:steps=1", "--epsilons", "0.5", "--out",
        "results",
    )  # fmt: skip
    command(*words).refused("sliding_window_shapes")
    shape = ("--set", "Occlusion.sliding_window_shapes=3,8,8", "--set", "Occlusion.baselines=0.5")
    done = command(*words, *shape)
    assert done.code == 0, done
    assert "Occlusion has no derivative" in done.err
    assert "Occlusion: how many network passes" in done.err
    assert "GradientShap: how many" not in done.err
    config = tomllib.loads((photos / "results" / "config.toml").read_text())["methods"]
    assert config["Occlusion"]["method"] == "captum:Occlusion"
    assert config["Occlusion"]["sliding_window_shapes"] == [3, 8, 8]
    assert config["Occlusion"]["baselines"] == 0.5
    assert config["GradientShap"]["baselines"] == "inputs", "drawn from the run's own"
    # Their names need no consent, the network's does.
    again = ("evaluate", "--config", "results/config.toml", "--out", "results", *NETWORK)
    assert command(*again).code == 0
    done = command("explain", "one.png", *NETWORK, "--method", "captum:Oclusion", "--out", "other")
    done.refused("did you mean 'Occlusion'")
