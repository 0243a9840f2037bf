"""`labels.csv` as spreadsheets and scripts write it: read as it is meant, or refused."""

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from moreaugrad.data.examples import open_examples
from moreaugrad.data.layouts import open_dataset

ROWS = [
    ("a.png", "207", "retriever"),
    ("b.png", "3", "cat; or, \u201cdog\u201d"),
    ("sub/c.png", "207", "retriever"),
]
EXPECTED = [
    ("a.png", "retriever", 207),
    ("b.png", "cat; or, \u201cdog\u201d", 3),
    ("sub/c.png", "retriever", 207),
]
HEADER = ("file", "class_index", "class_name")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    for number, (name, *_) in enumerate(ROWS):
        Image.fromarray(np.full((8, 8, 3), number, np.uint8)).save(tmp_path / name)
    return tmp_path


def table(delimiter: str = ",", end: str = "\n", header: tuple[str, ...] = HEADER) -> str:
    quoted = [[f'"{field}"' if field[-1] == "\u201d" else field for field in row] for row in ROWS]
    return end.join(delimiter.join(row) for row in [header, *quoted]) + end


def found(folder: Path, content: bytes | str, **more: str) -> list[tuple[str, str, int | None]]:
    data = content if isinstance(content, bytes) else content.encode()
    (folder / "labels.csv").write_bytes(data)
    return [(item.name, item.label, item.index) for item in open_dataset(folder, **more).items]


WRITTEN = {
    "plain": table(),
    "byte-order mark": table().encode("utf-8-sig"),
    "semicolons": table(";"),
    "tabs": table("\t"),
    "ends of lines of Windows": table(end="\r\n"),
    "ends of lines of old Macs": table(end="\r"),
    "semicolons and a byte-order mark": table(";", "\r\n").encode("utf-8-sig"),
    "UTF-16": table("\t", "\r\n").encode("utf-16"),
    "header in capitals": table(header=("File", "CLASS_INDEX", "Class_Name")),
    "header with spaces": table(header=(" file", "class_index ", " class_name ")),
    "quoted header": table(header=tuple(f'"{name}"' for name in HEADER)),
    "blank lines": table().replace("\n", "\n\n") + ",,\n",
    "spaces around fields": table().replace(",207,", " , 207 , "),
    "dots before names": table().replace("a.png", "./a.png").replace("sub/", "sub//"),
    "no end of the last line": table().rstrip(),
}


@pytest.mark.parametrize("kind", WRITTEN)
def test_tables_are_read_however_they_are_written(folder: Path, kind: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert found(folder, WRITTEN[kind]) == EXPECTED


def test_fields_may_hold_ends_of_lines(folder: Path) -> None:
    text = (
        'file,class_index,class_name\na.png,1,"one\ntwo"\nb.png,2,"a\u2028b\x85"\nsub/c.png,3,d\n'
    )
    assert [item[1] for item in found(folder, text)[:2]] == ["one\ntwo", "a\u2028b"]


REFUSED = {
    "other columns": ("id,breed\na,pug\n", "columns file, class_index.*--layout folders"),
    "no header": ("a.png,207\n", "columns file, class_index"),
    "other separators": (table("|"), "commas, semicolons or tabs; got 'file"),
    "Latin-1": (table(";").replace("retriever", "né").encode("cp1252"), "text in UTF-8"),
    "a field too few": ("file,class_index\na.png\n", "line 2: expected 2 fields, got 1"),
    "a comma in a name": (f"{table()}x,y.png,3,cat\n", "line 5: expected 3 fields, got 4"),
    "an empty name": ("file,class_index\n,3\n", "names of files below its folder, got ''"),
    "a fraction": ("file,class_index\na.png,3.5\n", "line 2: expected class indices"),
    "a file twice": (f"{table()}./a.png,3,cat\n", "each file once, got 'a.png' again"),
    "two names of a class": (f"{table()}d.png,207,cat\n", "one name for each class, got 'cat'"),
    "a column twice": ("file,class_index,File\na,1,b\n", "each column once"),
    "an open quote": (f'{table()}"d.png,207,cat\n', r"labels\.csv|listed"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_other_tables_are_refused_with_what_was_expected(folder: Path, kind: str) -> None:
    content, reason = REFUSED[kind]
    with pytest.raises(ValueError, match=reason):
        found(folder, content)


def test_a_table_of_others_may_lie_among_folders(folder: Path) -> None:
    assert len(found(folder, "id,breed\na,pug\n", layout="folders")) == len(ROWS)


def test_what_is_left_out_is_reported(folder: Path) -> None:
    with pytest.warns(UserWarning, match=r"2 images are not listed .* the first is b\.png"):
        assert found(folder, "file,class_index\na.png,1\n") == [("a.png", "", 1)]
    wide = "file,class_index,size,class\n" + "".join(f"{row[0]},{row[1]},8,x\n" for row in ROWS)
    with pytest.warns(UserWarning, match="columns size, class are not used"):
        assert [item[1] for item in found(folder, wide)] == ["", "", ""]


def test_a_part_is_the_rows_of_its_folder(folder: Path) -> None:
    (folder / "sub").rename(folder / "train")
    text = table().replace("sub/", "train/")
    assert found(folder, text, split="train") == [("train/c.png", "retriever", 207)]
    assert list(open_examples(folder).classes) == ["retriever"]
