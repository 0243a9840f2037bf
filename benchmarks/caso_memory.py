"""Peak memory of CASO on many photos against that of one chunk, in processes of their own.

    python -m benchmarks.caso_memory PHOTOS THREADS

prints its peak in MiB; 0 photos stand for one chunk of gradients and nothing else.
"""

from __future__ import annotations

import sys

import torch

from benchmarks import machine, subjects
from benchmarks.context import Context
from benchmarks.results import Result, Table
from moreaugrad import CASO

CHUNK = 16
COUNTS = (0, 1, CHUNK, 4 * CHUNK)


def run(context: Context) -> Result:
    subjects.load("squeezenet")
    found: dict[str, float] = {}
    for photos in COUNTS[: 2 if context.quick else None]:
        peak = float(machine.run_module("benchmarks.caso_memory", photos, context.threads))
        found[f"{photos} photos" if photos else "one chunk"] = peak
        print(f"  {photos} photos: {peak:.0f} MiB", flush=True)
    least = found["one chunk"]
    return Result(
        title="Memory of CASO",
        settings={"chunk": CHUNK, "hessian": "gauss-newton", "sparsity": 0.9},
        figures=found,
        tables=[
            Table(
                caption="Peak memory of so many photos at once.",
                header=["", "MiB", "over one chunk"],
                rows=[[name, peak, peak / least] for name, peak in found.items()],
            )
        ],
        notes=[f"one chunk: the gradients of {CHUNK} photos, and nothing else"],
    )


def worker(photos: int) -> float:
    subject = subjects.load("squeezenet")
    method = CASO(
        subject.fast, std=subject.preprocess.std, hessian="gauss-newton", batch_size=CHUNK
    )
    if photos:
        method.explain(subject.inputs(subject.names[:photos]))
    else:
        method.bind(subject.inputs(subject.names[:CHUNK])).value_and_grad()
    return machine.peak_mib()


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[2]))
    print(worker(int(sys.argv[1])))
