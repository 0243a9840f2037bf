"""The directory of a training."""

from __future__ import annotations

from types import MappingProxyType

from moreaugrad.files.atomic import remove_files
from moreaugrad.files.checksums import SUFFIX
from moreaugrad.models.trained import FILE as MODEL
from moreaugrad.models.trained import FINISHED, LABELS
from moreaugrad.runs.directory import RunDirectory
from moreaugrad.training.checkpoint import STATES, WEIGHTS

LOG, BEST, CARD, RESULTS, EVENTS = (
    "log.jsonl", "best.safetensors", "card.md", "results.json", "events",
)  # fmt: skip


class TrainFolder(RunDirectory):
    """Holds `config.toml`, `environment.json`, `log.jsonl` with a line an epoch, the
    checkpoint (`last.safetensors` with `state-STEP.safetensors`), `best.safetensors`, and, where
    all is done, the unit of `model.json`, `results.json`, `card.md`, `labels.json`, the log and the
    weights."""

    command = "train"
    named = MappingProxyType(
        {"data.source": "files", "model.weights": "start", "model.labels": "start"}
    )

    units = (FINISHED,)
    others = (LOG, BEST, LABELS, MODEL, CARD, RESULTS, WEIGHTS, STATES, f"{EVENTS}/*.tfevents.*")

    def forget(self) -> None:
        """Removes the checkpoint, so that the training begins again."""
        states = [file.name for file in self.path.glob(STATES)]
        remove_files(self.path, [f"{FINISHED}{SUFFIX}", WEIGHTS, *states])
