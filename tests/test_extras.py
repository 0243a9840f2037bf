"""What only some uses need: the extra is named where it is missing, and `all` has them all."""

import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import moreaugrad as mg
from moreaugrad.cli.commands import CommonOptions
from moreaugrad.cli.serving import serve
from moreaugrad.runs.plans.serve import ServePlan

ROOT = Path(__file__).parents[1]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
    "optional-dependencies"
]
FOR_DEVELOPERS = {"all", "test", "docs", "dev"}


def explanation() -> mg.Explanation:
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(48, 3)).eval()
    return mg.SimpleGradient(model).explain(torch.rand(1, 3, 4, 4))


def results() -> mg.Results:
    return mg.Results(rows=[{"index": 0}], maps={})


NEEDS: dict[str, tuple[str, str, Callable[[], object]]] = {
    "explanation": ("pandas", "pandas", lambda: explanation().to_pandas()),
    "results": ("pandas", "pandas", lambda: results().to_pandas()),
    "widget": ("anywidget", "explorer", lambda: explanation().explore()),
}


@pytest.mark.parametrize("use", NEEDS)
def test_a_missing_extra_is_named(use: str, monkeypatch: pytest.MonkeyPatch) -> None:
    package, extra, call = NEEDS[use]
    monkeypatch.delitem(sys.modules, "moreaugrad.explorer.notebook", raising=False)
    monkeypatch.setitem(sys.modules, package, None)  # what import takes for "not there"
    with pytest.raises(ImportError, match=rf"needs {package}.*'moreaugrad\[{extra}\]'"):
        call()


@pytest.mark.parametrize("package", ["uvicorn", "starlette"])
def test_serve_names_its_extra(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("starlette.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "moreaugrad.explorer.server", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ValueError, match=rf"'moreaugrad\[explorer\]'.*{package}"):
        serve(ServePlan(), CommonOptions())


def test_all_has_every_extra() -> None:
    (found,) = EXTRAS["all"]
    named = re.fullmatch(r"moreaugrad\[(.*)\]", found)
    assert named is not None
    assert set(named[1].split(",")) == set(EXTRAS) - FOR_DEVELOPERS


def test_the_pages_name_every_extra() -> None:
    text = (ROOT / "docs" / "install.md").read_text("utf-8")
    table = re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE)
    shown = {name for cell in table for name in re.findall(r"`(\w+)`", cell)}
    assert shown == set(EXTRAS) - {"test", "docs", "dev"}
