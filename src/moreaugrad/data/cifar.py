"""CIFAR-10 as it is distributed for Python: pickled batches, of which no code is run."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from moreaugrad.data.dataset import DataSet, Item, class_index
from moreaugrad.data.tree import Tree
from moreaugrad.files.foreign import parsing
from moreaugrad.registry import choose

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE, CLASSES = 32, 10


@dataclass(frozen=True, kw_only=True, eq=False)
class Batches(DataSet):
    """Pixels that lie in memory, `[N, 32, 32, 3]`."""

    pixels: Mapping[str, np.ndarray] = field(repr=False)

    def load(self, item: Item) -> Image:
        from PIL import Image

        return Image.fromarray(self.pixels[item.name])

    def digest(self, item: Item) -> str:
        return hashlib.sha256(self.pixels[item.name].tobytes()).hexdigest()


def read_cifar10(tree: Tree, split: str | None) -> DataSet | None:
    """The pickled batches of "CIFAR-10 python version", in the folder or the one inside it."""
    inside = next((p for p in ("", "cifar-10-batches-py/") if tree.has(f"{p}test_batch")), None)
    if inside is None:
        return None
    choose("split", split or "test", ("test", "train"))
    numbers = range(1, 6)
    wanted = [f"data_batch_{n}" for n in numbers] if split == "train" else ["test_batch"]
    meta = _batch(tree, f"{inside}batches.meta") if tree.has(f"{inside}batches.meta") else {}
    names = [name.decode() for name in _column(meta, b"label_names")]
    items, pixels = [], {}
    for batch in wanted:
        if not tree.has(inside + batch):
            raise ValueError(f"{tree.root}: expected the batch {batch}, but it is missing")
        where = str(tree.root / inside / batch)
        found = _batch(tree, inside + batch)
        with parsing(where, "pixels and labels of CIFAR-10"):
            planes = np.asarray(found[b"data"]).reshape(-1, 3, SIDE, SIDE)
            if planes.dtype != np.uint8:
                raise ValueError(f"got pixels of type {planes.dtype}")
            for place, (plane, index) in enumerate(zip(planes, found[b"labels"], strict=True)):
                known = class_index(index, where, last=CLASSES - 1)
                label = names[known] if known < len(names) else ""
                item = Item(name=f"{batch}/{place:05d}", label=label, index=known)
                items.append(item)
                pixels[item.name] = plane.transpose(1, 2, 0)
    return Batches(layout="cifar10", items=items, pixels=pixels)


def _column(table: Mapping[bytes, Any], name: bytes) -> list[bytes]:
    found = table.get(name, [])
    if not isinstance(found, list) or not all(isinstance(item, bytes) for item in found):
        raise ValueError(f"batches.meta: expected a list of names as {name.decode()}")
    return found


class _Arrays(pickle.Unpickler):
    """Lists, numbers, text and arrays; a pickle that names anything else is not run."""

    def find_class(self, module: str, name: str) -> Any:
        import _codecs

        if (module, name) == ("_codecs", "encode"):
            return _codecs.encode
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray"):
            rebuild = np.zeros(0).__reduce__()[0]
            known: dict[str, Any] = {
                "_reconstruct": rebuild, "ndarray": np.ndarray, "dtype": np.dtype,
            }  # fmt: skip
            if name in known:
                return known[name]
        raise ValueError(f"expected arrays alone, got {module}.{name}")


def _batch(tree: Tree, name: str) -> dict[bytes, Any]:
    with parsing(str(tree.root / name), "a batch of CIFAR-10"), tree.open(name) as file:
        found = _Arrays(file, encoding="bytes").load()
        if not isinstance(found, dict):
            raise ValueError(f"got a {type(found).__name__} instead of a dictionary")
        return found
