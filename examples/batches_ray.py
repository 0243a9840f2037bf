"""Maps of a data set of Ray Data, by two workers that each load the network once.

On a cluster with GPUs: `num_gpus=1` for `map_batches`, `loading={"device": "cuda"}`, and images as
`ray.data.read_images` reads them.

    python examples/batches_ray.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np
import ray

import moreaugrad as mg

SIZE, COUNT = 64, 16
SETTINGS = {"model": "builtin", "method": "smoothgrad", "settings": {"samples": 4}}


def images() -> list[dict[str, object]]:
    """Rows of synthetic cells, as a data set of images has them: arrays `[H, W, 3]` of uint8."""
    cells = mg.data.Cells(size=SIZE, count=COUNT)
    levels = [(cells[i][0].permute(1, 2, 0).numpy() * 255).astype(np.uint8) for i in range(COUNT)]
    return [{"id": i, "image": level} for i, level in enumerate(levels)]


def main(folder: str) -> None:
    ray.init(num_cpus=2, include_dashboard=False)
    maps = ray.data.from_items(images()).map_batches(
        mg.BatchExplainer, fn_constructor_kwargs=SETTINGS, batch_size=4, concurrency=2
    )
    maps.write_parquet(f"{Path(folder).resolve()}/maps")
    print(f"{COUNT} maps in {folder}/maps")


if __name__ == "__main__":
    main(*sys.argv[1:2] or ["."])
