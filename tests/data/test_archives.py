"""Zip archives of anybody: what they unpack to is bounded, whatever their headers say."""

import io
import struct
import tracemalloc
import zipfile

import pytest

from moreaugrad.data.tree import MEMBER_LIMIT, RATIO_FROM, open_tree

METHODS = [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]
SIZE, PEAK = 2**27, 2**23
"""Bytes of the zeros, and of what may be in memory of them."""


@pytest.fixture(scope="module")
def bombs(tmp_path_factory):
    """Archives of zeros, by method."""
    folder = tmp_path_factory.mktemp("bombs")
    for method in METHODS:
        with (
            zipfile.ZipFile(folder / f"{method}.zip", "w", method) as archive,
            archive.open("a.png", "w") as file,
        ):
            for _ in range(SIZE // 2**20):
                file.write(bytes(2**20))
    return folder


def with_size(data, size, packed=None):
    """With other sizes in the archive's list of its files."""
    data = bytearray(data)
    place = data.rfind(b"PK\x01\x02")
    if packed is not None:
        data[place + 20 : place + 24] = struct.pack("<I", packed)
    data[place + 24 : place + 28] = struct.pack("<I", size)
    return bytes(data)


def refused(path, data, match):
    path.write_bytes(data)
    tree = open_tree(path)
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=rf"set\.zip.*a\.png: .*{match}"):
            tree.open("a.png")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [None, RATIO_FROM + 1, MEMBER_LIMIT, MEMBER_LIMIT + 1, 2**32 - 1])
def test_a_declared_size_is_checked_before_unpacking(tmp_path, bombs, method, size, monkeypatch):
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *_: pytest.fail("unpacked"))
    data = (bombs / f"{method}.zip").read_bytes()
    why = "times as many" if method == zipfile.ZIP_DEFLATED else "packed by deflate"
    assert refused(tmp_path / "set.zip", with_size(data, size or SIZE), why) < PEAK


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [100, 2**20])
def test_a_size_that_lies_does_not_fill_the_memory(tmp_path, bombs, method, size):
    data = (bombs / f"{method}.zip").read_bytes()
    assert refused(tmp_path / "set.zip", with_size(data, size), "packed") < PEAK


def test_a_packed_size_that_lies_does_not_change_the_ratio(tmp_path, bombs):
    data = (bombs / f"{zipfile.ZIP_DEFLATED}.zip").read_bytes()
    refused(tmp_path / "set.zip", with_size(data, SIZE, 2**31), "times as many")


def test_a_file_shorter_than_its_header_says_is_refused(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"content" * 100)
    refused(tmp_path / "set.zip", with_size(buffer.getvalue(), 2**20), "has 700 bytes, not 1048576")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_usual_files_are_unpacked_whole(tmp_path, method):
    content = bytes(range(256)) * 500
    with zipfile.ZipFile(tmp_path / "set.zip", "w", method) as archive:
        archive.writestr("a.png", content)
        archive.writestr("b.png", bytes(2**20))  # much smaller when packed, and harmless
    tree = open_tree(tmp_path / "set.zip")
    assert tree.open("a.png").read() == content
    assert len(tree.open("b.png").read()) == 2**20
