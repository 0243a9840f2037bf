"""The notebooks of the documentation: they run, and show what their text says."""

import importlib.util
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

ROOT = Path(__file__).parents[1]
PATHS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
EXTRAS = {
    "text": ["transformers", "pandas"], "tables": ["pandas", "sklearn"], "vision": ["sklearn"],
    "series": ["pydicom"], "volumes": ["nibabel"],
}  # fmt: skip
"""What some of them need besides the core."""


@pytest.fixture(scope="module")
def notebooks() -> ModuleType:
    spec = importlib.util.spec_from_file_location("notebooks", ROOT / "docs" / "notebooks.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def written(*cells: tuple[str, str]) -> str:
    return json.dumps({"cells": [{"cell_type": kind, "source": [text]} for kind, text in cells]})


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_is_short_and_stored_without_outputs(path: Path) -> None:
    cells = json.loads(path.read_text("utf-8"))["cells"]
    assert 8 <= len(cells) <= 15
    assert cells[0]["cell_type"] == "markdown"
    assert cells[0]["source"][0].startswith("# ")
    assert len({cell["id"] for cell in cells}) == len(cells)
    for cell in cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None
    assert f"- notebooks/{path.stem}.md\n" in (ROOT / "mkdocs.yml").read_text("utf-8")


def first_map(space: Mapping[str, Any]) -> bool:
    return bool(space["result"].ok) and space["predicted"].item() == space["label"]


def compare(space: Mapping[str, Any]) -> bool:
    chance = space["feature"].double().mean((1, 2))
    maps = (torch.stack(list(space["results"].maps[name].values())) for name in space["methods"])
    scores = [space["mg"].metrics.average_precision(m.abs().sum(1), space["feature"]) for m in maps]
    return all(bool((score > 8 * chance).all()) for score in scores)


def robust(space: Mapping[str, Any]) -> bool:
    found, bound = space["found"].values(), space["bound"].overlap[0]
    return (
        all(bool((each.after < each.before).all()) for each in found)
        and bool((bound.diff() <= 0).all())
        and float(bound[-1]) > 0
    )


def training(space: Mapping[str, Any]) -> bool:
    gini, maps = space["mg"].metrics.gini, space["gradients"]
    right = [
        (model(space["test_x"]).argmax(1) == space["test_y"]).double().mean()
        for model in space["models"].values()
    ]
    sparser = gini(maps["perturbed"]).mean() > gini(maps["plain"]).mean() + 0.1
    return min(right) > 0.9 and bool(sparser)


def text(space: Mapping[str, Any]) -> bool:
    """The model has learned the topics, and is less sure without the words that are named."""
    found, without = space["found"], space["without"]
    return (
        float(space["right"]) > 0.75
        and max(float(one.explanation.error) for one in found) < 0.1
        and without["largest"] + 0.15 < without["random"] <= without["none"]
        and all(0 < (one.word_values != 0).sum() < len(one.words) for one in space["sparse"])
    )


def tables(space: Mapping[str, Any]) -> bool:
    """The size comes first, and the network fails without what supports its predictions."""
    found, without, sparse = space["found"], space["without"], space["sparse"]
    first = [found.names[at] for at in found.strength().argsort(descending=True)[:3]]
    kept = (sparse.values != 0).sum(1)
    return (
        bool(found.ok)
        and bool(sparse.ok)
        and set(first) == {"radius", "perimeter", "area"}
        and bool((kept == 3).all())
        and float(space["right"].double().mean()) > 0.94
        and without["most support"] + 0.1 < without["random"] < without["smallest"]
    )


def vision(space: Mapping[str, Any]) -> bool:
    """Each map is of the digit, and what makes a 3 an 8 is what tells the two apart."""
    found, in_cell = {**space["maps"], **space["free"]}, space["in_cell"]
    parts = {name: in_cell(result.maps, space["where"]) for name, result in found.items()}
    cells = found["gradient"].maps.view(-1, 4, 8, 4, 8).transpose(2, 3).flatten(1, 2)
    edges, inner = (
        cells[torch.arange(len(cells)), space["where"]][..., columns].mean()
        for columns in ([0, 7], slice(2, 6))
    )
    return (
        all(float(first) >= 0.9 for first, _ in parts.values())
        and float(parts["patches"][1]) > 0.95
        and found["patches"].settings["group_size"] == [8, 8]
        and found["Grad-CAM"].settings["cam_layer"] == "norm"
        and float(space["right"].double().mean()) > 0.85
        and float(space["alike"]) > 0.5
        and bool(edges < -2 * inner.abs())
    )


def series(space: Mapping[str, Any]) -> bool:
    """The map has the leads that an exchange changes, no others, and the network needs them."""
    kept = space["size"] > 0
    changed = (space["wrong"] != space["beat"]).any(2)[0]
    mended = torch.where(space["inside"], space["beat"], space["wrong"])
    return (
        bool(space["result"].ok)
        and bool((kept.any(1) == changed).all())
        and float(space["right"]) > 0.98
        and space["model"](mended).argmax().item() == 0
        and space["model"](space["wrong"]).argmax().item() == 1
    )


def volumes(space: Mapping[str, Any]) -> bool:
    """Every map points at the lesion, and without the blocks of the map the network sees none."""
    distances, maps = space["distances"], space["maps"]
    near = [distances.flatten()[values[0].abs().argmax()] for values in maps.values()]
    blocks = maps["blocks"][0].abs()
    mended = torch.where(space["kept"], space["scans"][1:], space["ill"])
    return (
        bool(space["result"].ok)
        and max(near) <= 4
        and bool(blocks[distances <= 5].sum() > 0.8 * blocks.sum())
        and float(space["right"]) > 0.95
        and space["model"](mended).argmax().item() == 0
    )


SAID: dict[str, Callable[[Mapping[str, Any]], bool]] = {
    "first-map": first_map, "compare": compare, "robust": robust, "training": training,
    "text": text, "tables": tables, "vision": vision, "series": series, "volumes": volumes,
}  # fmt: skip
"""Whether a notebook has shown what its text says, by the names that it defined."""


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, notebooks: ModuleType) -> None:
    for package in EXTRAS.get(path.stem, ()):
        pytest.importorskip(package)
    found = notebooks.run(path.read_text("utf-8"), path.name)
    assert SAID[path.stem](found.space)
    made = notebooks.page(path.stem, found)
    page = made[f"notebooks/{path.stem}.md"]
    assert f"]({path.name})" in page  # the download
    figures = [name for name in made if name.endswith(".png")]
    assert all(f"]({Path(name).name})" in page for name in figures)
    assert figures or '<div class="output">' in page
    assert "/tmp/" not in page


def test_outputs_are_those_of_a_notebook(notebooks: ModuleType, tmp_path: Path) -> None:
    cells = [
        ("markdown", "# Title\n\n[other](other.ipynb)"),
        ("code", "x = 1\nprint('<a>')\nx + 1"),
        ("code", "class Both:\n    def _repr_html_(self): return 'one\\n\\ntwo'\nBoth()"),
        ("code", ("class Figure:\n    def _repr_html_(self): return None\n"
         "    def _repr_png_(self): return b'png'\nFigure()")),
        ("code", "open('here', 'w').close()\nNone"),
    ]  # fmt: skip
    made = notebooks.page("name", notebooks.run(written(*cells), "name.ipynb"))
    page = made["notebooks/name.md"]
    assert "[other](other.md)" in page
    assert page.index("# Title") < page.index("](name.ipynb)") < page.index("```python\nx = 1")
    assert '<pre class="output">&lt;a&gt;</pre>\n\n<pre class="output">2</pre>' in page
    assert '<div class="output">one\ntwo</div>' in page
    assert "](name-1.png)" in page
    assert made["notebooks/name-1.png"] == b"png"
    assert not Path("here").exists()  # written in a folder of its own
    assert page.count("output") == 3


@pytest.mark.parametrize(
    ("code", "error"),
    [("1 / 0", ZeroDivisionError), ("import warnings; warnings.warn('x')", UserWarning)],
)
def test_a_failing_cell_ends_the_build(
    code: str, error: type[Exception], notebooks: ModuleType
) -> None:
    with pytest.raises(error) as caught:
        notebooks.run(written(("markdown", "# Title"), ("code", code)), "name.ipynb")
    assert caught.traceback[-1].path == Path("name.ipynb, cell 2") or any(
        "name.ipynb, cell 2" in str(entry) for entry in caught.traceback
    )
