"""The directory of a training."""

from __future__ import annotations

import shutil
from types import MappingProxyType

from moreaugrad.files import write_atomically
from moreaugrad.models.trained import FILE as MODEL
from moreaugrad.runs.directory import RunDirectory, remove_partial
from moreaugrad.training.checkpoint import WEIGHTS

LOG, BEST, LABELS, CARD, RESULTS, EVENTS = (
    "log.jsonl", "best.safetensors", "labels.txt", "card.md", "results.json", "events",
)  # fmt: skip


class TrainFolder(RunDirectory):
    """Holds `config.toml`, `environment.json`, `log.jsonl` with a line an epoch, `labels.txt`, the
    checkpoint (`last.safetensors` with `state-STEP.safetensors`), `best.safetensors`, and, where
    all is done, `model.json`, `results.json` and `card.md`."""

    command = "train"
    named = MappingProxyType(
        {"data.source": "files", "model.weights": "start", "model.labels": "start"}
    )

    def clear(self) -> None:
        for pattern in (LOG, BEST, LABELS, MODEL, CARD, RESULTS, WEIGHTS, "state-*.safetensors"):
            for file in self.path.glob(pattern):
                file.unlink()
        shutil.rmtree(self.path / EVENTS, ignore_errors=True)

    def text(self, name: str, text: str) -> None:
        remove_partial(self.path, name)
        write_atomically(self.path / name, text.encode())
