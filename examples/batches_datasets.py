"""A column of maps for a data set of Hugging Face's datasets, computed by two processes.

`datasets` stores what it computes by a digest of the function: the same call again reads the maps.

    python examples/batches_datasets.py FOLDER
"""

import sys

import datasets
import numpy as np

import moreaugrad as mg

SIZE, COUNT = 64, 16


def images() -> list[dict[str, object]]:
    """Rows of synthetic cells, as a data set of images has them: arrays `[H, W, 3]` of uint8."""
    cells = mg.data.Cells(size=SIZE, count=COUNT)
    levels = [(cells[i][0].permute(1, 2, 0).numpy() * 255).astype(np.uint8) for i in range(COUNT)]
    return [{"id": i, "image": level} for i, level in enumerate(levels)]


def main(folder: str) -> None:
    features = datasets.Features({"id": datasets.Value("int64"), "image": datasets.Image()})
    rows = datasets.Dataset.from_list(images(), features=features)
    explain = mg.BatchExplainer(model="builtin", method="smoothgrad", settings={"samples": 4})
    maps = rows.map(explain, batched=True, batch_size=4, num_proc=2, remove_columns="image")
    maps.to_parquet(f"{folder}/maps.parquet")
    print(f"{len(maps)} maps in {folder}/maps.parquet, statuses {set(maps['status'])}")


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["."])
