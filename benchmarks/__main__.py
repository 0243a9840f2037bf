"""python -m benchmarks [PART ...]: runs the measurements and writes JSON and tables."""

from __future__ import annotations

import argparse
import importlib
import os
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from benchmarks import machine, results
from benchmarks.cache import Cache
from benchmarks.context import CPU, Context
from benchmarks.subjects import VARIABLE, MissingData

CACHE = "MOREAUGRAD_CACHE"
HERE = Path(__file__).parent


def _part(module: str, **settings: str) -> Callable[[Context], results.Result]:
    """`run` of a module, which is imported when its turn comes."""

    def run(context: Context) -> results.Result:
        found = importlib.import_module(f"benchmarks.{module}")
        return partial(found.run, **settings)(context)

    return run


MATCHED = (
    "resnet20-softplus", "resnet20", "resnet56", "vit-gelu", "vit-relu", "resnet20-advgrad",
    "squeezenet", "mobilenetv2",
)  # fmt: skip
"""Networks of the robustness study."""
PARTS: dict[str, Callable[[Context], results.Result]] = {
    "accuracy-resnet20": _part("accuracy", network="resnet20"),
    "accuracy-squeezenet": _part("accuracy", network="squeezenet"),
    "error-bars-resnet20": _part("error_bars", network="resnet20"),
    "error-bars-squeezenet": _part("error_bars", network="squeezenet"),
    "centre-resnet20": _part("centre", network="resnet20"),
    "centre-squeezenet": _part("centre", network="squeezenet"),
    "centre-mobilenetv2": _part("centre", network="mobilenetv2"),
    "calibration-resnet20": _part("calibration", network="resnet20"),
    "calibration-squeezenet": _part("calibration", network="squeezenet"),
    "calibration-mobilenetv2": _part("calibration", network="mobilenetv2"),
    "calibration-vit-gelu": _part("calibration", network="vit-gelu"),
    "calibration-vit-relu": _part("calibration", network="vit-relu"),
    "calibration-kws": _part("calibration", network="kws"),
    "calibration-kws-curved": _part("calibration", network="kws-curved"),
    "calibration-bytes": _part("calibration", network="bytes"),
    **{f"matched-{network}": _part("matched", network=network) for network in MATCHED},
    **{
        f"settings-{network}": _part("matched_subsets", kind="settings", network=network)
        for network in MATCHED
    },
    **{
        f"equal-noise-{network}": _part("matched_subsets", kind="equal-noise", network=network)
        for network in MATCHED
    },
    "matched-baselines": _part("matched_subsets", kind="baselines", network=MATCHED[0]),
    "matched-many-gradients": _part("matched_subsets", kind="many-gradients", network=MATCHED[1]),
    "matched-released": _part("matched_subsets", kind="released", network=MATCHED[0]),
    "matched-summary": _part("matched_summary"),
    "localisation-cells": _part("localisation", subject="cells"),
    "localisation-birds": _part("localisation", subject="birds"),
    "pixels-resnet20": _part("pixels", network="resnet20"),
    "pixels-squeezenet": _part("pixels", network="squeezenet"),
    "guidance-resnet20": _part("guidance", network="resnet20"),
    "guidance-vit-gelu": _part("guidance", network="vit-gelu"),
    "guidance-vit-relu": _part("guidance", network="vit-relu"),
    "balanced-vit-gelu": _part("balanced", network="vit-gelu"),
    "balanced-vit-relu": _part("balanced", network="vit-relu"),
    "guidance-squeezenet": _part("guidance", network="squeezenet"),
    "figure-rho": _part("figures", figure="rho"),
    "figure-eta": _part("figures", figure="eta"),
    "figure-group-eta": _part("figures", figure="group-eta"),
    "figure-methods-squeezenet": _part("figures", figure="methods"),
    "figure-methods-resnet20-softplus": _part(
        "figures", figure="methods", network="resnet20-softplus"
    ),
    "gallery-photos": _part("gallery_photos"),
    "speed": _part("speed"),
    "passes": _part("passes"),
    "surrogates": _part("surrogates"),
    "accelerator": _part("accelerator"),
    "optimise": _part("optimise"),
    "linearity": _part("linearity"),
    "smoothgrad": _part("smoothgrad"),
    "small-inputs": _part("small_inputs"),
    "tables": _part("tables"),
    "texts": _part("texts"),
    "noise": _part("noise"),
    "memory": _part("memory"),
    "startup": _part("startup"),
    "large-run": _part("large_run"),
    "scaling": _part("scaling"),
    "explorer": _part("explorer"),
    "structure": _part("structure"),
    "envelope": _part("envelope"),
    "solvers": _part("solvers"),
    "attack-strength": _part("attack_strength"),
    "attacked-certificates": _part("attacked"),
    "caso": _part("caso"),
    "caso-memory": _part("caso_memory"),
    "study-resnet20-softplus": _part("study", name="resnet20-softplus"),
    "study-resnet20": _part("study", name="resnet20"),
    "training-cifar10": _part("training", name="cifar10"),
    "training-imagenette": _part("training", name="imagenette"),
    "training-cells": _part("training", name="cells"),
    "training-scratch": _part("training_scratch"),
    "figure-difference-squeezenet": _part("difference", network="squeezenet"),
    "figure-difference-resnet20-softplus": _part("difference", network="resnet20-softplus"),
    "figure-confidence-squeezenet": _part(
        "figures_caso", figure="confidence", network="squeezenet"
    ),
    "figure-confidence-resnet20-softplus": _part(
        "figures_caso", figure="confidence", network="resnet20-softplus"
    ),
    "figure-comparison": _part("figures_caso", figure="comparison"),
    "figure-lambda1": _part("figures_caso", figure="lambda1"),
    "figure-rank-one": _part("rank_one"),
    "metrics": _part("metrics"),
    "derivatives": _part("derivatives"),
    "loader": _part("loader"),
    "training-cost": _part("training_cost"),
    "training-callback": _part("training_callback"),
    "training-scaling": _part("training_scaling"),
    "training-diffroar": _part("training_diffroar"),
    "training-stability": _part("training_stability"),
    "training-sanity": _part("training_sanity"),
    "training-features": _part("training_features"),
    "training-labels": _part("training_labels"),
    "training-truth": _part("training_truth"),
    "training-attention": _part("training_attention", study="cells"),
    "training-gaze": _part("training_attention", study="gaze"),
    "training-robustness": _part("training_robustness"),
    "training-gallery-cifar10": _part("training_gallery", study="cifar10"),
    "training-gallery-imagenette": _part("training_gallery", study="imagenette"),
}


def main() -> int:
    options = _options()
    torch.set_num_threads(options.threads)
    context = Context(
        out=options.out or HERE / "results" / _folder(options),
        cache=Cache(options.cache),
        quick=options.quick,
        threads=options.threads,
        photos=options.photos,
        device=options.device,
    )
    failed = []
    for name in _chosen(options.parts):
        began = time.perf_counter()
        print(f"{name} ...", flush=True)
        try:
            result = PARTS[name](context)
        except MissingData as missing:
            print(f"{name}: skipped; {missing}", flush=True)
            continue
        except Exception:  # whatever it is, the other parts still have their turn
            traceback.print_exc()
            failed.append(name)
            continue
        found = machine.describe(options.device) | {
            "seconds": round(time.perf_counter() - began),
            "date": time.strftime("%Y-%m-%d"),
            "quick": context.quick,
        }
        path = results.write(result, name, context.out, found)
        print(path.read_text(encoding="utf-8"), flush=True)
    if failed:
        print(f"failed: {', '.join(failed)}", flush=True)
    return 1 if failed else 0


def _folder(options: argparse.Namespace) -> str:
    """Trials, and images that are not ours to give away, stay out of the results."""
    return "quick" if options.quick else "photos" if options.photos else ""


def _chosen(parts: list[str]) -> list[str]:
    """All parts, or those that are named, in full or by a beginning that is no part itself."""
    chosen = [
        name
        for part in parts
        for name in ([part] if part in PARTS else PARTS)
        if f"{name}-".startswith(f"{part}-")
    ]
    return chosen or list(PARTS)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    beginnings = {name[:at] for name in PARTS for at, letter in enumerate(name) if letter == "-"}
    known = sorted({*PARTS, *beginnings})
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(known)}")
    parser.add_argument("--quick", action="store_true", help="two images, to try the code")
    parser.add_argument(
        "--photos", action="store_true", help="show images next to their maps, in results/photos"
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--device", type=torch.device, default=CPU,
        help="device of the parts that can be measured on another one (cpu)",
    )  # fmt: skip
    parser.add_argument("--out", type=Path, help="folder of the results (benchmarks/results)")
    parser.add_argument(
        "--cache",
        type=Path,
        default=os.environ.get(CACHE) or Path.home() / ".cache" / "moreaugrad-benchmarks",
        help=f"folder of finished pieces, to go on after an interruption (${CACHE})",
    )
    parser.epilog = f"Networks and images are read from ${VARIABLE}; without it parts skip."
    options = parser.parse_args()
    options.cache = Path(options.cache)
    unknown = [part for part in options.parts if part not in known]
    if unknown:
        parser.error(f"unknown part {unknown[0]!r}; there are {', '.join(known)}")
    return options


if __name__ == "__main__":
    raise SystemExit(main())
