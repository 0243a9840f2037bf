"""Answers of the explorer, read as a page reads them."""

import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

CELL = Path(__file__).parents[1] / "docs" / "images" / "cell.png"


@dataclass
class Frame:
    """A frame as a page sees it."""

    header: dict[str, Any]
    arrays: dict[str, np.ndarray[Any, Any]]


def frames(messages: Iterator[tuple[dict[str, Any], bytes]], shape: Any = (3, 64, 64)) -> Any:
    """The recipes and the frames of an answer."""
    (recipes, _), *found = messages
    made = []
    for header, data in found:
        parts = np.frombuffer(data, np.float32).reshape(-1, *shape)
        made.append(Frame(header, dict(zip(header["arrays"], parts, strict=True))))
    return recipes, made


def unpacked(data: bytes) -> list[tuple[dict[str, Any], bytes]]:
    found = []
    while data:
        head, size = struct.unpack("<II", data[:8])
        found.append((json.loads(data[8 : 8 + head]), data[8 + head : 8 + head + size]))
        data = data[8 + head + size :]
    return found
