"""SmoothGrad against Captum's NoiseTunnel, at equal samples, noise and chunk."""

from __future__ import annotations

from functools import partial

from captum.attr import NoiseTunnel, Saliency

from benchmarks import subjects
from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.timing import Work, interleaved
from moreaugrad import SmoothGrad

SAMPLES = {"squeezenet": 64, "resnet20": 512}
IMAGES = (1, 4)
SIGMA = 0.3
ROUNDS = 5


def run(context: Context) -> Result:
    rounds = 1 if context.quick else ROUNDS
    rows: list[list[object]] = []
    ratios: dict[str, float] = {}
    for network, samples in SAMPLES.items():
        subject = subjects.load(network)
        inputs = subject.inputs(subject.names[: max(IMAGES)])
        target = subject.predictions(inputs)
        tunnel = NoiseTunnel(Saliency(subject.fast))
        ours = SmoothGrad(
            subject.fast, sigma=SIGMA, sigma_mode="absolute", samples=samples,
            batch_size=subject.chunk,
        )  # fmt: skip
        for count in IMAGES:
            x, classes = inputs[:count], target[:count]
            works: dict[str, Work] = {
                "captum": partial(
                    tunnel.attribute, x, nt_type="smoothgrad", nt_samples=samples,
                    nt_samples_batch_size=subject.chunk // count, stdevs=SIGMA,
                    target=classes, abs=False,
                ),
                "ours": partial(ours.explain, x, target=classes),
            }  # fmt: skip
            seconds = interleaved(works, rounds)
            ratio = seconds["ours"] / seconds["captum"]
            ratios[f"{network}, {count}"] = ratio
            rows.append([network, count, samples, subject.chunk, *seconds.values(), ratio])
            print("  " + " ".join(map(str, rows[-1])), flush=True)
    return Result(
        title="SmoothGrad against Captum's NoiseTunnel",
        settings={"samples": SAMPLES, "sigma": SIGMA, "rounds": rounds},
        figures={"ours / captum": ratios},
        tables=[
            Table(
                caption="Seconds (medians of turns) of the same network, samples and chunk.",
                header=["network", "images", "samples", "chunk", "Captum", "ours", "ours / Captum"],
                rows=rows,
            )
        ],
        notes=["Captum: NoiseTunnel(Saliency(model)), abs=False; ours also states the map's error"],
    )
