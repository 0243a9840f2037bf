"""Texts through a network of DistilBERT's size: the time of their maps over that of its passes."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

import moreaugrad as mg
from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.timing import timed
from moreaugrad.models.packages import import_torchvision
from moreaugrad.runs.timing import network_time

TEXTS, WORDS = 64, (4, 30)
EVALUATIONS = 64
"""Most of a map."""
SPARSE = {"method": "group-sparse-moreaugrad", "max_evaluations": EVALUATIONS}
SETTINGS: dict[str, dict[str, Any]] = {
    "with noise": SPARSE,
    "without noise": SPARSE | {"sigma": 0.0},
    "simple gradient": {"method": "simple-gradient"},
}


def run(context: Context) -> Result:
    module, tokenizer = _network()
    texts = _texts(4 if context.quick else TEXTS)
    rows: list[list[object]] = []
    for name, settings in SETTINGS.items():
        found: list[Any] = []
        explained = partial(mg.text.explain, module, tokenizer, **settings)
        explained(texts[:2])
        with network_time(module, context.device) as inside:
            whole = timed(lambda: found.append(explained(texts)))  # noqa: B023
            passes = inside()
        spent = [int(one.explanation.evaluations[0]) for one in found[0]]
        rows.append([name, len(texts), sum(spent), whole, passes, round(whole / passes, 3)])
        print("  " + " ".join(map(str, rows[-1])), flush=True)
    return Result(
        title="Time of maps of texts",
        settings={"texts": len(texts), "words": WORDS, "most evaluations": EVALUATIONS},
        figures={"time over passes": {str(row[0]): row[-1] for row in rows}},
        tables=[
            Table(
                caption="Seconds, of all and inside of the network's passes.",
                header=["", "texts", "evaluations", "seconds", "in passes",
                        "all over passes"],
                rows=rows,
            )
        ],
        notes=[
            "six layers of 768 features with random weights; texts of random words, no padding",
            "in passes: inside the forward pass and the backward, by the clock",
        ],
    )  # fmt: skip


def _network() -> tuple[torch.nn.Module, Any]:
    import_torchvision()
    import transformers

    config = transformers.DistilBertConfig()
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_vocabulary()]
    vocabulary += [f"[unused{at}]" for at in range(config.vocab_size - len(vocabulary))]
    tokenizer = transformers.DistilBertTokenizerFast(
        vocab={token: at for at, token in enumerate(vocabulary)}
    )
    torch.manual_seed(0)
    return transformers.DistilBertForSequenceClassification(config).eval(), tokenizer


def _vocabulary() -> list[str]:
    return [f"{a}{b}{c}" for a in "bdklmrst" for b in "aeiou" for c in "lmnrst"]


def _texts(count: int) -> list[str]:
    draw, words = np.random.default_rng(0), _vocabulary()
    return [" ".join(draw.choice(words, draw.integers(*WORDS))) for _ in range(count)]
