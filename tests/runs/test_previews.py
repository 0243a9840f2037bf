"""Maps to look at first: what they cost, what is left of them, and a run within a time."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from moreaugrad.cli import screen
from moreaugrad.cli.entry import run
from moreaugrad.files.units import Units
from moreaugrad.pictures.wording import NARROW
from moreaugrad.reports.folder import preview_stem
from moreaugrad.reports.reading import MapsFolder
from moreaugrad.runs.engine import Observer, Outcome, execute
from moreaugrad.runs.maps.previews import BUDGETS, CENTRED, MOST, Pace, shared_out
from moreaugrad.runs.maps.run import MapsRun
from moreaugrad.runs.plans.common import DataPlan, ModelPlan
from moreaugrad.runs.plans.explain import ExplainPlan

MODEL = "tiny_models:smooth"
METHODS: dict[str, dict[str, Any]] = {
    "simple-gradient": {},
    "slow": {"method": "smoothgrad", "samples": 1100},
    "sparse-moreaugrad": {"tolerance": 0.02, "chains": 2},
}  # fmt: skip
"""Quick, slow without levels, and one that is refined."""


HARD: dict[str, dict[str, Any]] = {"sparse-moreaugrad": {"tolerance": 0.002, "chains": 2}}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (30, 30, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


class Looking(Observer):
    """agrees: to what takes long."""

    looking = True

    def __init__(self, agrees: bool = True, seen: Callable[[Path], None] | None = None) -> None:
        self.agrees, self.seen = agrees, seen
        self.pages: list[Path] = []
        self.told: list[str] = []
        self.questions: list[str] = []

    def page(self, path: Path) -> None:
        self.pages.append(path)
        if self.seen is not None:
            self.seen(path)

    def news(self, text: str) -> None:
        self.told.append(text)

    def agreed(self, question: str) -> bool:
        self.questions.append(question)
        return self.agrees


def plan(**more: Any) -> ExplainPlan:
    plain = ExplainPlan(
        data=DataPlan(source="photos"), model=ModelPlan(name=MODEL), methods=METHODS, block=2
    )
    return dataclasses.replace(plain, **more)


def explained(out: str, watch: Observer | None = None, **more: Any) -> Outcome:
    return execute(MapsRun(plan(**more), watch=watch), Path(out))


def contents(out: str) -> dict[str, bytes]:
    """All but times, which the page shows too."""
    names = (path for path in sorted(Path(out).rglob("*")) if path.is_file())
    found = {path.relative_to(out).as_posix(): path.read_bytes() for path in names}
    return {name: data for name, data in found.items() if not name.startswith(("times/", "index"))}


def times(out: str) -> set[str]:
    return {path.relative_to(out).as_posix() for path in Path(out, "times").rglob("*.json")}


def records(out: str, method: str = "sparse-moreaugrad") -> list[dict[str, Any]]:
    found = MapsFolder.read(Path(out))
    return [record["map"] for record in found.records if record["method"] == method]


@pytest.mark.parametrize("interactions", [None, 2])
def test_previews_leave_the_final_folder_as_it_is_without_them(interactions: int | None) -> None:
    explained("plain", interactions=interactions)
    watch = Looking()
    assert explained("looked-at", watch, interactions=interactions).complete
    assert contents("plain") == contents("looked-at")
    assert times("plain") == times("looked-at")
    assert len(watch.pages) == 1
    assert not watch.questions


def test_the_page_has_a_map_of_every_quick_or_refined_method_first() -> None:
    seen: list[MapsFolder] = []

    def look(path: Path) -> None:
        seen.append(MapsFolder.read(path.parent))
        assert "are previews" in path.read_text(encoding="utf-8")

    explained("out", Looking(seen=look))
    (first,) = seen
    made = [(record["method"], record["index"]) for record in first.records]
    assert made == [
        (method, index)
        for block in ((0, 1), (2,))
        for method in ("simple-gradient", "sparse-moreaugrad")
        for index in block
    ]
    assert first.previews == 2
    assert not first.complete
    previews = [r["map"] for r in first.records if r["method"] == "sparse-moreaugrad"]
    final = records("out")
    assert all(one["evaluations"] <= 2 * MOST + 66 for one in previews)
    for before, after in zip(previews, final, strict=True):
        assert before["error"] > after["error"]


def test_slow_methods_alone_have_no_page_before_their_maps() -> None:
    watch = Looking()
    assert explained("out", watch, methods={"slow": METHODS["slow"]}).complete
    assert not watch.pages
    (text,) = watch.told
    assert "first maps" not in text
    assert len(records("out", "slow")) == 3


def test_what_would_take_long_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("moreaugrad.runs.maps.previews.LONG", 0.0)
    watch = Looking(agrees=False)
    stopped = explained("out", watch)
    assert stopped.interrupted
    assert len(watch.questions) == 1
    units = Units(Path("out"))
    assert units.finished(preview_stem("methods/sparse-moreaugrad/00000"))
    assert not units.finished("methods/sparse-moreaugrad/00000")
    assert "are previews" in Path("out/index.html").read_text(encoding="utf-8")

    again = Looking(agrees=False)  # begun again, it is not asked: it may go on
    assert explained("out", again).complete
    explained("plain")
    assert contents("plain") == contents("out")


def test_the_estimate_is_of_the_evaluations_that_are_left() -> None:
    watch = Looking()
    explained("out", watch, methods={"sparse-moreaugrad": {"tolerance": 0.02}})
    (text,) = watch.told
    stated = float(text.split("about ")[1].split(" ")[0].replace(NARROW, ""))
    taken = sum(one["evaluations"] for one in records("out"))
    assert taken / CENTRED < stated < CENTRED * taken


def test_a_time_is_a_budget_that_is_kept() -> None:
    seen: list[dict[str, int]] = []

    class Once(Looking):
        """Is stopped after the budgets are made."""

        def news(self, text: str) -> None:
            seen.append(json.loads(Path("out", BUDGETS).read_bytes()))
            raise KeyboardInterrupt

    assert explained("out", Once(), time=0.01, methods=HARD).interrupted
    (budgets,) = seen
    assert budgets == {"sparse-moreaugrad": MOST}
    changed = {"sparse-moreaugrad": 2 * MOST}
    Path("out", BUDGETS).write_text(json.dumps(changed), encoding="utf-8")
    assert explained("out", Looking(), time=0.01, methods=HARD).complete
    for one in records("out"):
        assert one["status"] == "budget used"
        assert MOST < one["evaluations"] <= 2 * 2 * MOST + 66


def test_budgets_that_cannot_be_read_are_made_again() -> None:
    explained("out", time=60.0)
    Path("out", BUDGETS).write_text("[1]", encoding="utf-8")
    for file in Path("out/methods/sparse-moreaugrad").iterdir():
        file.unlink()
    assert explained("out", time=60.0).complete
    assert set(json.loads(Path("out", BUDGETS).read_bytes())) == {"sparse-moreaugrad"}


def test_what_is_left_of_the_time_is_shared_out() -> None:
    """10 s: slow maps without levels take 4, and the others as long as each other."""
    runs = MapsRun(plan(methods={**METHODS, "moreaugrad": {}}))
    slow, sparse, plain = runs.setup.methods[1:]
    pace = Pace()
    for method, each in ((slow, 1e-3), (sparse, 2e-3), (plain, 1e-3)):
        pace.add(method, 100 * each, [{"map": {"evaluations": 100}}])
    own = slow.explainer.budget()
    left = 6.0 + 3 * own * 1e-3
    found = shared_out(left, pace, [(slow, 3), (sparse, 3), (plain, 3)])
    assert math.isclose(found["sparse-moreaugrad"], 1.0 / (2 * 2e-3), rel_tol=0.01)
    assert math.isclose(found["moreaugrad"], 1.0 / 1e-3, rel_tol=0.01)
    assert "slow" not in found


def command(*words: str) -> list[str]:
    return ["explain", "photos", "--model", MODEL, "--methods", "simple-gradient", *words]


def test_a_command_line_without_a_folder_has_one_of_its_own(
    capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    def folders() -> set[str]:
        return {path.name for path in folder.glob("moreaugrad-explain-*")}

    assert run(command()) == 0
    (first,) = folders()
    assert run(command("--quiet")) == 0  # the same one: it is finished
    assert folders() == {first}
    assert run(command("--score", "probability")) == 0
    assert len(folders()) == 2
    assert first in capsys.readouterr().out


def test_the_page_is_opened_once(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    words = command("--out", "out", "--open", "--set", "sparse-moreaugrad.tolerance=0.02")
    words[words.index("simple-gradient")] = "simple-gradient,sparse-moreaugrad"
    assert run(words) == 0
    assert opened == [(folder / "out/index.html").as_uri()]


@pytest.mark.parametrize("text", ["0", "-1s", "soon", "1d"])
def test_no_time(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(command("--out", "out", "--time", text)) == 2
    assert "--time" in capsys.readouterr().err


def test_a_question_is_for_a_terminal_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def answer(question: str, **_: object) -> bool:
        asked.append(question)
        return False

    monkeypatch.setattr(screen.Confirm, "ask", answer)
    assert screen.Viewer().agreed("Go on?")
    assert not asked
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    assert not screen.Viewer().agreed("Go on?")
    assert screen.Viewer(yes=True).agreed("Go on?")
    assert len(asked) == 1
