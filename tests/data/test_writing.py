"""`moreaugrad data cells`: a folder that reads as the cells themselves."""

import json
from pathlib import Path

import numpy as np
import pytest

from moreaugrad.cli.entry import run
from moreaugrad.data.cells import CLASS_NAMES
from moreaugrad.data.examples import open_examples
from moreaugrad.data.layouts import open_dataset
from moreaugrad.data.loading import prepare
from moreaugrad.data.writing import write_cells


def files(root: Path) -> dict[str, bytes]:
    found = (file for file in root.rglob("*") if file.is_file())
    return {str(file.relative_to(root)): file.read_bytes() for file in found}


def test_the_folder_reads_as_the_cells(tmp_path: Path) -> None:
    assert write_cells(tmp_path, counts={"train": 60, "test": 9, "val": 0}, size=20, seed=3) == 69
    classes = open_examples(tmp_path).classes
    for part, count in (("train", 60), ("test", 9)):
        read = open_examples(tmp_path, split=part, classes=classes)
        drawn = open_examples("cells", split=part, size=20, seed=3, count=count)
        assert read.has_attention
        order = np.argsort([int(Path(read.describe(index)).stem) for index in range(count)])
        for number, index in enumerate(order.tolist()):
            assert int(read.labels[index]) == int(drawn.labels[number])
            for one, other in zip(read.pixels(index), drawn.pixels(number), strict=True):
                assert np.array_equal(one, other)
    assert len(prepare(open_examples(tmp_path))) == 60
    assert classes == CLASS_NAMES
    assert len(open_dataset(tmp_path).items) == 9


def test_an_interrupted_call_is_finished_by_another(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    write_cells(whole, counts={"train": 40}, size=16)
    before = []

    def interrupt(done: int, total: int) -> None:
        before.append((done, total))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_cells(broken, counts={"train": 40}, size=16, progress=interrupt)
    assert before == [(16, 40)]
    assert write_cells(broken, counts={"train": 40}, size=16, workers=2) == 24
    assert files(broken) == files(whole)
    assert write_cells(broken, counts={"train": 40}, size=16) == 0
    assert write_cells(broken, counts={"train": 50, "val": 3}, size=16) == 13


def test_what_a_kill_or_a_power_cut_leaves_is_made_good(tmp_path: Path) -> None:
    write_cells(tmp_path / "whole", counts={"train": 4}, size=16)
    write_cells(tmp_path / "cells", counts={"train": 4}, size=16)
    whole = files(tmp_path / "whole")
    images = sorted((tmp_path / "cells").rglob("*.png"))
    images[0].write_bytes(b"")
    images[1].write_bytes(images[1].read_bytes()[:-20])
    images[2].write_bytes(bytes(len(images[2].read_bytes())))
    (images[3].parent / ".moreaugrad-01234567.partial").write_bytes(b"half")
    (tmp_path / "cells" / ".moreaugrad.lock").write_bytes(b"")
    assert write_cells(tmp_path / "cells", counts={"train": 4}, size=16) == 3
    assert files(tmp_path / "cells") == whole


def test_other_folders_are_left_alone(tmp_path: Path) -> None:
    write_cells(tmp_path / "cells", counts={"train": 4}, size=16)
    before = files(tmp_path)
    for more, message in (
        ({"size": 20}, "written with size = 16, not 20"),
        ({"seed": 1}, "written with seed = 0, not 1"),
        ({"counts": {"train": 3}}, "written with train = 4, not 3"),
        ({"counts": {"test": 3}}, "written with train = 4, not 0"),
    ):
        with pytest.raises(ValueError, match=message):
            write_cells(tmp_path / "cells", **{"counts": {"train": 4}, "size": 16, **more})
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    for name in ("other", "other/letter.txt"):
        with pytest.raises(ValueError, match="expected a new folder"):
            write_cells(tmp_path / name, counts={"train": 4})
    assert files(tmp_path) == before | {"other/letter.txt": b"dear"}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["data", "cells", "--images", "5", "--test-images", "2", "--size", "16", "--out"]
    assert run([*words, str(tmp_path / "a"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["written"] == 7
    assert run([*words, str(tmp_path / "a")]) == 0
    assert capsys.readouterr().out.startswith("0 images written to")
    assert run([*words, str(tmp_path / "a"), "--seed", "4"]) == 2
    assert "written with seed = 0, not 4" in " ".join(capsys.readouterr().err.split())
    assert run(["data", "cells", "--images", "0", "--out", str(tmp_path / "b")]) == 2
    assert run(["data"]) == 0
    assert "cells" in capsys.readouterr().out
