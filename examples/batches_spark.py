"""Maps of image files by Spark, in two Python workers that each load the network once.

Spark needs Java. On a cluster leave out `master`, and name a folder that all machines read.

    python examples/batches_spark.py FOLDER
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pandas
from pyspark.sql import SparkSession

import moreaugrad as mg
from moreaugrad.data.writing import write_cells

explain = mg.BatchExplainer(model="builtin", method="smoothgrad", settings={"samples": 4})


def explained(frames: Iterator[pandas.DataFrame]) -> Iterator[pandas.DataFrame]:
    """A column of Spark has one dimension in each row: the entries of a map in a list."""
    for frame in frames:
        found = explain({"image": frame["content"].tolist(), "path": frame["path"].tolist()})
        found["map"] = [values.ravel().tolist() for values in found["map"]]
        yield pandas.DataFrame(found)


def main(folder: str) -> None:
    place = Path(folder).resolve()
    write_cells(place / "cells", counts={"test": 16}, size=64)
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # else the path's python3
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false")
    session = spark.getOrCreate()
    files = session.read.format("binaryFile").load(f"{place}/cells/test/*/*.png").repartition(2)
    maps = files.mapInPandas(explained, "path string, map array<float>, status string")
    maps.write.parquet(f"{place}/maps")
    print(f"{session.read.parquet(f'{place}/maps').count()} maps in {folder}/maps")
    session.stop()


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["."])
