"""The folder of a run as it lies on disk: names of its parts, its records, its tables."""

from __future__ import annotations

import csv
import importlib.util
import io
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moreaugrad.attacks.catalogue import CLEAN
from moreaugrad.files.foreign import number_name, read_json
from moreaugrad.files.units import Record, Units, flat

CONFIG, ENVIRONMENT = "config.toml", "environment.json"
SAMPLES, METHODS, PREVIEWS = "samples", "methods", "previews"
MARK = re.compile(r"# Written by moreaugrad ([\w -]+)\.\n")
PAGE, PAGE_UNIT = "index.html", "index"
COMPARED = "compared."
"""Before the labels of the second network's methods."""


def unit_stem(block: int, label: str = "") -> str:
    """Of a block of images, or of their maps by a method."""
    return f"{METHODS}/{label}/{block:05d}" if label else f"{SAMPLES}/{block:05d}"


def preview_stem(unit: str) -> str:
    """Of the maps to look at until those of a unit are there."""
    return PREVIEWS + unit.removeprefix(METHODS)


def shown_units(units: Units, through: Iterable[str]) -> Iterator[str]:
    """The units of maps that are finished, or their previews."""
    for unit in through:
        yield from [one for one in (unit, preview_stem(unit)) if units.finished(one)][:1]


def tensor_name(index: int, attack: str, epsilon: float | None, what: str) -> str:
    """In a unit's `.safetensors`, for example `17/clean/map` and `17/top-k/0.5/input`."""
    budget = [] if epsilon is None else [number_name(epsilon)]
    return "/".join([str(index), attack, *budget, what])


def read_config(path: Path) -> tuple[str, dict[str, Any], str]:
    """The command that made a run, its configuration, and that as text.

    Errors: ValueError for what is not the folder of a run.
    """
    file = path / CONFIG
    if not file.is_file():
        what = f"it holds no {CONFIG}" if path.is_dir() else "there is no such folder"
        raise ValueError(f"{path}: expected the folder of a run, but {what}")
    try:
        text = file.read_text(encoding="utf-8")
        mark = MARK.match(text)
        table = tomllib.loads(text)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ValueError(f"{file}: expected the configuration of a run ({error})") from None
    if mark is None:
        raise ValueError(f"{path}: expected the folder of a run, but moreaugrad did not write it")
    return mark[1], table, text


def swept_label(method: str, over: str, value: float) -> str:
    """Of a method at a value of a sweep."""
    return f"{method}.{over}={number_name(value)}"


def read_environments(path: Path) -> list[dict[str, Any]]:
    """All that have worked on the run: versions, devices, threads."""
    try:
        found = read_json(path / ENVIRONMENT, "the environments of a run")
    except (OSError, ValueError):
        return []
    return found if isinstance(found, list) else []


def labels(config: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The methods of a configuration by the labels of their maps, with what they are: `method`,
    `settings`, `value` (of a sweep), `compared` (of the second network)."""
    found: dict[str, Mapping[str, Any]] = {
        label: {"method": given.get("method", label), "settings": given}
        for label, given in config.get("methods", {}).items()
    }
    sweep = config.get("sweep", {})
    for value in sweep.get("values", ()):
        settings, label = (
            sweep.get("settings", {}),
            swept_label(sweep["method"], sweep["over"], value),
        )
        found[label] = {"method": sweep["method"], "settings": settings, "value": float(value)}
    for label, given in config.get("compare", {}).get("methods", {}).items():
        method = given.get("method", label)
        found[COMPARED + label] = {"method": method, "settings": given, "compared": True}
    return found


def image_count(config: Mapping[str, Any]) -> int:
    data = config.get("data", {})
    chosen = len(data.get("indices", ())) or int(data.get("images", 0))
    return chosen or len(data.get("files", ()))


def stages(config: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """The units of a run of maps: of the images, and block by block through the methods."""
    size = config.get("block", 1)
    blocks = range(-(-image_count(config) // size))
    first = config.get("sweep", {}).get("images")
    through = [
        unit_stem(block, label)
        for block in blocks
        for label, what in labels(config).items()
        if "value" not in what or first is None or block * size < first
    ]
    return [unit_stem(block) for block in blocks], through


def read_inputs(units: Units, config: Mapping[str, Any]) -> list[Record]:
    """A record of each image that could be read, with those of its clean maps by label."""
    samples, through = stages(config)
    done = [record for unit in filter(units.finished, samples) for record in units.records(unit)]
    found = {record["index"]: {**record, "maps": {}} for record in done if "problem" not in record}
    for unit in shown_units(units, through):
        for record in units.records(unit):
            if record["index"] in found and record["attack"] == CLEAN:
                found[record["index"]]["maps"][record["method"]] = {
                    name: value
                    for name, value in record.items()
                    if name not in ("input", "index", "method", "attack", "epsilon")
                }
    return list(found.values())


def table_rows(units: Units, config: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """A flat row for each map: names of nested values are joined by dots."""
    samples, through = stages(config)
    whole = filter(units.finished, samples)
    seen = {record["index"]: record for unit in whole for record in units.records(unit)}
    for unit in shown_units(units, through):
        for record in units.records(unit):
            image = seen[record["index"]]
            about: dict[str, Any] = {"input": record["input"], "index": record["index"]}
            about |= {name: image[name] for name in ("text", "label", "class") if name in image}
            yield {**about, **flat(record)}


def write_tables(units: Units, config: Mapping[str, Any]) -> None:
    """The tables of a run of maps, with a row for each."""
    for name, data in table_files(list(table_rows(units, config))).items():
        units.put(name, data)


def table_files(rows: Sequence[Mapping[str, Any]]) -> dict[str, bytes]:
    """`records.csv`; and `records.parquet` where pyarrow is installed."""
    files = {"records.csv": csv_bytes(rows)}
    if importlib.util.find_spec("pyarrow") is not None:
        files["records.parquet"] = _parquet(rows)
    return files


def csv_bytes(rows: Sequence[Mapping[str, Any]]) -> bytes:
    text = io.StringIO()
    # Line ends of RFC 4180: the writer quotes names with either of their characters.
    writer = csv.DictWriter(text, _columns(rows))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    import pyarrow
    import pyarrow.parquet

    columns = {name: [row.get(name) for row in rows] for name in _columns(rows)}
    sink = pyarrow.BufferOutputStream()
    pyarrow.parquet.write_table(pyarrow.table(columns), sink)
    found: bytes = sink.getvalue().to_pybytes()
    return found
