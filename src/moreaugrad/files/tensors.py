"""Tensors with a text in one safetensors file, written as a whole, with a digest of its content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from moreaugrad.files.atomic import write_atomically
from moreaugrad.files.foreign import parsing, regular_file

HEADER = "moreaugrad"
WORD = 8
"""Bytes before the header, which hold its length."""


def write_tensors(path: Path, tensors: Mapping[str, Tensor], text: str) -> None:
    """Writes a safetensors file with its digest, completely or not at all. Errors: OSError.

    text: its metadata, a single entry because several would have no fixed order.
    """
    kept = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_atomically(path, save(kept, {HEADER: f"{_digest(kept, text)} {text}"}))


def read_tensors(path: Path, expected: str) -> tuple[str, dict[str, Tensor]]:
    """What `write_tensors` wrote: the text and the tensors.

    expected: what the file should be, such as "an explanation". Errors: ValueError for no file, a
    damaged one and one of another program.
    """
    # Of bytes: safetensors opens no file below a folder whose name is not UTF-8.
    data = regular_file(path, expected).read_bytes()
    with parsing(str(path), expected):
        if data[WORD : WORD + 1] != b"{":
            raise ValueError("it is a file of another kind")
        try:
            found = load(data)
        except SafetensorError as error:
            raise ValueError(f"{path}: is damaged ({error})") from error
        header = json.loads(data[WORD : WORD + int.from_bytes(data[:WORD], "little")])
        digest, _, text = header.get("__metadata__", {}).get(HEADER, "").partition(" ")
        if not digest:
            raise ValueError("another program wrote it")
        if digest != _digest(found, text):
            raise ValueError(f"{path}: is damaged (its content is not what was written)")
    return text, found


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    return hashlib.sha256(text.encode() + save(dict(tensors))).hexdigest()
