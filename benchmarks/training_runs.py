"""Networks trained once for all studies: finished trainings are kept, others go on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.command import moreaugrad
from benchmarks.context import Context
from benchmarks.training_rows import ONE, STUDIES, Row
from moreaugrad.files.atomic import write_atomically
from moreaugrad.runs.plans.toml import plan_toml
from moreaugrad.runs.plans.train import TrainPlan

Trained = Mapping[str, Mapping[int, Path]]
"""The folder of each training, by the stem of its row and its seed."""


def trained(context: Context, study: str, rows: Sequence[Row]) -> Trained:
    """Trains what is not yet, as many at a time as there are threads, rows in their order.

    Quick ones learn for an epoch.
    """
    plan = STUDIES[study].plan(context)
    folder = context.cache.folder / f"train-{study}{'-quick' if context.quick else ''}"
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(row, seed) for row in rows for seed in (ONE if context.quick else row.seeds)]
    jobs.sort(key=lambda job: (len(job[0].seeds) == 1, job[1]))

    def train(job: tuple[Row, int]) -> Path:
        row, seed = job
        epochs = 1 if context.quick else max(1, plan.epochs // row.replays)
        out = folder / f"{row.stem}-{seed}"
        return _train(replace(plan, protocol=row.protocol, seed=seed, epochs=epochs), out)

    # Networks as small as these gain little from a second thread, and much from a second process.
    with ThreadPoolExecutor(context.threads) as pool:
        found = list(pool.map(train, jobs))
    runs: dict[str, dict[int, Path]] = {row.stem: {} for row, _ in jobs}
    for (row, seed), out in zip(jobs, found, strict=True):
        runs[row.stem][seed] = out
    return runs


def result(run: Path) -> dict[str, Any]:
    """What a finished training found."""
    found: dict[str, Any] = json.loads((run / "results.json").read_text(encoding="utf-8"))
    return found


def _train(plan: TrainPlan, out: Path) -> Path:
    if not (out / "results.json").exists():
        file = out.with_name(f"{out.name}.toml")
        write_atomically(file, plan_toml(plan, out.parent).encode())
        moreaugrad(
            "train",
            "--config",
            str(file),
            "--trust",
            "--out",
            str(out),
            "--checkpoint-every",
            "100",
            "--quiet",
        )
    found = result(out)["test"]
    print(f"  {out.name}: accuracy {found['accuracy']:.3f}, Gini {found['gini']['mean']:.3f}",
          flush=True)  # fmt: skip
    return out
