"""Peak memory of many photos and draws against that of one chunk, in processes of their own.

    python -m benchmarks.memory NETWORK PHOTOS EVALUATIONS THREADS

prints its peak in MiB; 0 evaluations stand for one chunk of passes and nothing else.
"""

from __future__ import annotations

import sys

import torch
from torch import Tensor, nn

from benchmarks import machine, subjects
from benchmarks.context import Context
from benchmarks.references import Setting
from benchmarks.results import Result, Table
from moreaugrad import SparseMoreauGrad

CHUNK = 16
# photos, evaluations of each; the first stands for one chunk.
RUNS = {
    "squeezenet": ((1, 0), (1, 256), (4, 256)),
    "start": ((1, 0), (1, 256), (1, 4096), (64, 256)),
}
QUICK = {"start": ((1, 0), (2, 256))}


class Start(nn.Module):
    """SqueezeNet's first layers, which hold most of its memory, and a mean in place of the rest."""

    def __init__(self, squeezenet: nn.Module) -> None:
        super().__init__()
        features = squeezenet.get_submodule("features")
        assert isinstance(features, nn.Sequential)
        self.features = features[:4]

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.features(x).mean((2, 3))
        return out


def run(context: Context) -> Result:
    subjects.load("squeezenet")
    rows: list[list[object]] = []
    figures: dict[str, dict[str, float]] = {}
    for network, runs in (QUICK if context.quick else RUNS).items():
        found: dict[str, float] = {}
        for photos, evaluations in runs:
            peak = _peak(network, photos, evaluations, context.threads)
            name = f"{photos} x {evaluations}" if evaluations else "one chunk"
            found[name] = peak
            rows.append(
                [network, photos, evaluations or "one chunk", peak, peak / found["one chunk"]]
            )
            print("  " + " ".join(map(str, rows[-1])), flush=True)
        figures[network] = found
    return Result(
        title="Peak memory",
        settings={"chunk": CHUNK, "runs": RUNS},
        figures=figures,
        tables=[
            Table(
                caption="Peak resident memory of a whole process, Python and torch included, MiB.",
                header=["network", "photos", "evaluations of each", "peak", "over one chunk"],
                rows=rows,
            )
        ],
        notes=[
            (
                "photos of 3 x 224 x 224. start: SqueezeNet's first layers, whose chunk is smaller "
                "than the whole network's, so that the ratio is rather too large than too small"
            ),
            (
                "to save time 64 photos are run with 256 evaluations each; one photo with 256 and "
                "with 4096 shows how memory depends on them"
            ),
        ],
    )


def _peak(network: str, photos: int, evaluations: int, threads: int) -> float:
    return float(machine.run_module("benchmarks.memory", network, photos, evaluations, threads))


def worker(network: str, photos: int, evaluations: int) -> float:
    subject, setting = subjects.load("squeezenet"), Setting()
    model = Start(subject.fast) if network == "start" else subject.fast
    inputs = subject.inputs(subject.names[:photos])
    # tolerance: out of reach, so that no photo stops before its evaluations are spent
    explainer = SparseMoreauGrad(
        model, rho=setting.rho, eta=setting.eta, sigma=setting.sigma, batch_size=CHUNK,
        tolerance=1e-9, max_evaluations=evaluations or 256,
    )  # fmt: skip
    if evaluations:
        explainer.explain(inputs)
    else:
        explainer.bind(inputs).value_and_grad(draws=range(CHUNK))
    return machine.peak_mib()


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[4]))
    print(worker(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
