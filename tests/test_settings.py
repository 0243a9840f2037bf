"""What public classes say of themselves: every setting is explained, and their examples run."""

import doctest
import inspect
import pydoc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import moreaugrad as mg
from moreaugrad.registry import import_code
from moreaugrad.settings import Documented, settings_of

ROOT = Path(__file__).parents[1]
PACKAGES = (mg, mg.attacks, mg.certificates, mg.data, mg.explainers, mg.metrics, mg.models,
            mg.penalties, mg.targets, mg.training)  # fmt: skip
PUBLIC = {
    found for package in PACKAGES for name in dir(package)
    if isinstance(found := getattr(package, name), Documented)
}  # fmt: skip
CLASSES = {
    found for package in PACKAGES for name in dir(package)
    if isinstance(found := getattr(package, name), type) and not inspect.isabstract(found)
}  # fmt: skip
FUNCTIONS = {
    found for package in PACKAGES for name in dir(package)
    if callable(found := getattr(package, name)) and ">>>" in str(found.__doc__)
    and not isinstance(found, Documented)
}  # fmt: skip


def name_of(part: Any) -> str:
    return f"{part.__module__.partition('.')[2]}.{part.__name__}"


WITH_EXAMPLES = sorted(FUNCTIONS | CLASSES, key=name_of)


@pytest.mark.parametrize("cls", sorted(PUBLIC, key=name_of), ids=name_of)
def test_every_setting_is_explained(cls: type) -> None:
    text = pydoc.render_doc(cls, renderer=pydoc.plaintext)
    for setting in settings_of(cls):
        assert setting.meaning.endswith("."), f"{setting.name} has no string below it"
        assert f"{setting.name}: {setting.hint}" in text
        assert setting.meaning.splitlines()[0] in text


def test_methods_attacks_and_protocols_are_among_them() -> None:
    rows = (mg.METHODS, mg.attacks.ATTACKS, mg.training.PROTOCOLS, mg.penalties.PENALTIES)
    assert {row.load() for registry in rows for row in registry.values()} <= PUBLIC


@pytest.fixture(scope="module")
def space() -> dict[str, Any]:
    """What examples are written with."""
    loaded = mg.load_model("builtin")
    x = loaded.preprocess(mg.load_image(ROOT / "docs" / "images" / "cell.png"))[None]
    maps = torch.linspace(0, 1, x.numel()).reshape(x.shape)
    return {"mg": mg, "torch": torch, "model": loaded.module.requires_grad_(), "x": x, "maps": maps,
            "y": torch.tensor([6])}  # fmt: skip


@pytest.mark.parametrize("part", WITH_EXAMPLES, ids=name_of)
@pytest.mark.filterwarnings("ignore::moreaugrad.ConvergenceWarning")
def test_the_example_runs(
    part: Any, space: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    examples = doctest.DocTestParser().get_examples(vars(part).get("__doc__") or part.__doc__)
    assert examples, "a public class has no example"
    own = dict(space)
    for example in examples:
        exec(compile(example.source, name_of(part), "exec"), own)


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Halved(mg.SimpleGradient):
    """Half of the gradient."""

    keep: float = 0.5
    factor: float = 0.5
    """What the gradient is multiplied by."""
    unsaid: str = "x"


def test_own_settings_come_first_and_meanings_are_inherited() -> None:
    found = {one.name: one for one in settings_of(Halved)}
    names = list(found)
    assert names[:5] == ["forward_func", "keep", "factor", "unsaid", "times_input"]
    assert names[-1] == "check"
    assert (found["keep"].default, found["keep"].owner) == ("0.5", Halved)
    assert found["keep"].meaning.startswith("Fraction of the entries")
    assert found["factor"].meaning == "What the gradient is multiplied by."
    assert found["unsaid"].meaning == ""
    assert found["forward_func"].default == ""


def test_help_has_them_after_the_docstring() -> None:
    text = inspect.getdoc(Halved)
    assert text.startswith("Half of the gradient.\n\nSettings:\n    forward_func: ")
    assert "\n    factor: float = 0.5\n        What the gradient" in text
    assert '\n    unsaid: str = "x"\n    times_input' in text
    assert str(inspect.signature(Halved)).startswith("(forward_func: ")


@dataclass(frozen=True, eq=False)
class Counted(mg.targets.TargetFunction):
    weights: dict
    pair: tuple[int, str] = (1, "a")

    def __call__(self, output: Any) -> torch.Tensor:
        return output[:, 0]


def test_tables_and_tuples_of_several_types_fit_their_declaration() -> None:
    assert Counted(weights={"a": 1.0}, pair=(2, "b")).pair == (2, "b")
    with pytest.raises(ValueError, match="pair"):
        Counted(weights={}, pair=("b", 2))
    with pytest.raises(ValueError, match="pair"):
        Counted(weights={}, pair={"b": 2})


def test_a_class_without_a_source_has_its_names_and_defaults() -> None:
    space: dict[str, Any] = {"mg": mg, "dataclass": dataclass}
    exec(
        "@dataclass(frozen=True, kw_only=True, eq=False)\nclass Made(mg.Noise):\n    more: int = 1",
        space,
    )
    assert "more: int = 1" in space["Made"].__doc__


def test_a_missing_library_is_not_a_missing_module(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nosuch_helper.py").write_text("import nosuch\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="importing nosuch_helper failed"):
        import_code("nosuch_helper:part", "a class")
