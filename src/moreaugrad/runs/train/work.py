"""Trains by a plan: epoch after epoch into a directory from which it can go on."""

from __future__ import annotations

import json
import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from moreaugrad.models.trained import FILE as MODEL
from moreaugrad.models.trained import FINISHED, LABELS, Trained
from moreaugrad.runs.evaluate.environment import deterministic, environment
from moreaugrad.runs.job import ComputePlan
from moreaugrad.runs.network import fixed_threads
from moreaugrad.runs.pace import Unwatched, Watch
from moreaugrad.runs.records import Record, json_text
from moreaugrad.runs.train.card import card_text, results_of
from moreaugrad.runs.train.events import Events
from moreaugrad.runs.train.folder import BEST, CARD, LOG, RESULTS, TrainFolder
from moreaugrad.runs.train.judge import validate
from moreaugrad.runs.train.plan import plan_toml
from moreaugrad.runs.train.prepare import PreparedTrain
from moreaugrad.training.checkpoint import (
    WEIGHTS,
    Checkpoint,
    Progress,
    read_tensors,
    write_tensors,
)
from moreaugrad.training.loop import FIGURES, Trainer
from moreaugrad.training.losses import LOSSES
from moreaugrad.training.schedules import SCHEDULES

TYPES = {"bfloat16": torch.bfloat16}
CHECKS = ("checked", "overshot")
"""Of a protocol's tally."""


@dataclass(kw_only=True, eq=False)
class TrainOutcome:
    """records: of the finished epochs. results: what the best epoch's network is worth; empty
    where the training is not finished."""

    folder: Path
    records: Sequence[Mapping[str, Any]] = ()
    results: Record = field(default_factory=dict)
    interrupted: bool = False
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


def run_train(
    prepared: PreparedTrain, out: Path, *, overwrite: bool = False, watch: Watch | None = None
) -> TrainOutcome:
    """Writes a run directory, or goes on with the one that is there.

    An interruption (Ctrl-C) keeps the last checkpoint.
    Errors: ValueError for an unsuitable folder; FloatingPointError where the loss is no longer
    finite; OSError where the disk is full or another process has died.
    """
    plan = prepared.plan
    with fixed_threads(plan.threads), deterministic(plan.device):
        return _Run(prepared, out, watch or Unwatched()).run(overwrite)


def make_trainer(prepared: PreparedTrain) -> Trainer:
    plan = prepared.plan
    return Trainer(
        prepared.module, prepared.optimiser, list(prepared.protocols.values()),
        loss=LOSSES[plan.loss], seed=plan.seed, pieces=plan.shards or 1,
        amp=TYPES[plan.amp] if plan.amp else None, total=prepared.team.total,
    )  # fmt: skip


class _Run:
    def __init__(self, prepared: PreparedTrain, out: Path, watch: Watch) -> None:
        self.prepared, self.watch, self.team = prepared, watch, prepared.team
        self.plan, self.folder = prepared.plan, TrainFolder(out)
        self.outcome = TrainOutcome(folder=out, notes=list(prepared.notes))
        self.progress = Progress()
        self.trainer = make_trainer(prepared)

    def run(self, overwrite: bool) -> TrainOutcome:
        began = time.perf_counter()
        compute = ComputePlan(device=self.plan.device, threads=self.plan.threads)
        config, now = plan_toml(self.plan, self.folder.path), environment(compute)
        with self.folder.opened(config, now, overwrite=overwrite, team=self.team):
            self._train()
        self.outcome.records = self.progress.records
        self.outcome.seconds = time.perf_counter() - began
        return self.outcome

    def _train(self) -> None:
        if len(self.folder.environments()) > 1:
            self.outcome.notes.append(
                "this training was begun with other versions or on another machine: its weights "
                "may differ by rounding (environment.json tells of all)"
            )
        self._resume()
        try:
            with Events(self.folder.path, leads=self.team.rank == 0) as events:
                for epoch in range(self.progress.epoch, self.plan.epochs):
                    self._epoch(epoch)
                    events.write(self.progress.records[-1])
            self._finish()
        except KeyboardInterrupt:
            self.outcome.interrupted = True
        except OSError as error:
            if isinstance(error, ConnectionError):
                raise
            raise OSError(
                f"{self.folder.path}: cannot be written to ({error.strerror or error}); what is "
                "there stays, and the same command goes on from the last checkpoint"
            ) from error

    def _resume(self) -> None:
        """From the last checkpoint; where it or the best epoch's network is damaged, the training
        begins again, and a warning says so."""
        self.team.first(self._remove_damaged)
        found = Checkpoint.load(self.folder.path)
        if found is not None:
            found.restore(self.prepared.module, self.prepared.optimiser, self.prepared.protocols)
            self.progress = found.progress
            if self.progress.epoch < self.plan.epochs:
                done = f"epoch {self.progress.epoch + 1}, batch {self.progress.batch + 1}"
                self.watch.said(f"going on from the checkpoint at {done}")

    def _remove_damaged(self) -> None:
        try:
            found = Checkpoint.load(self.folder.path)
            if found is None:
                return
            if found.progress.records:
                read_tensors(self.folder.path / BEST)
            found.tidy(self.folder.path)
        except (ValueError, OSError) as error:
            warnings.warn(f"{error}: the training begins again", stacklevel=2)
            self.folder.forget()

    def _epoch(self, epoch: int) -> None:
        """From the batch where the training is. Errors: FloatingPointError, told with the place."""
        prepared, plan = self.prepared, self.plan
        pieces, shards = list(prepared.protocols), plan.shards or 1
        batches = prepared.loader.pieces(epoch, pieces, shards, start=self.progress.batch)
        tally = torch.zeros(2, len(FIGURES), dtype=torch.float64)
        if self.progress.tally:
            tally += torch.tensor(self.progress.tally, dtype=torch.float64)
        rate = SCHEDULES[plan.optimiser.schedule]
        for number, batch in enumerate(batches, self.progress.batch):
            step = self.progress.step
            for group in prepared.optimiser.param_groups:
                group["lr"] = plan.optimiser.lr * rate(step, prepared.steps)
            found = [prepared.piece(n, part) for n, part in zip(pieces, batch, strict=True)]
            try:
                tally += self.trainer.step(found, count=plan.batch, step=step)
            except FloatingPointError as error:
                raise self._diverged(error, epoch, number) from error
            except torch.OutOfMemoryError as error:
                raise MemoryError(
                    f"a batch of {plan.batch} pictures does not fit: use a smaller --batch or "
                    "--size, or --amp bfloat16"
                ) from error
            self.progress = replace(
                self.progress, batch=number + 1, step=step + 1, tally=tally.tolist()
            )
            last = number + 1 == len(prepared.loader)
            every = prepared.means.checkpoint_every
            if every and (step + 1) % every == 0 and not last:
                self._save()
            self.watch.pace(step + 1, prepared.steps, f"epoch {epoch + 1} of {plan.epochs}")
        self._close(epoch, tally)

    def _close(self, epoch: int, tally: Tensor) -> None:
        """Judges the epoch, and writes what came of it."""
        found = self.team.say(
            validate(self.prepared, self.prepared.validation) if self.team.rank == 0 else None
        )
        if found["loss"] is None:
            raise self._diverged(
                FloatingPointError("the loss of the validation pictures is not finite"),
                epoch, len(self.prepared.loader) - 1,
            )  # fmt: skip
        before = [record["validation"]["accuracy"] for record in self.progress.records]
        best = not before or found["accuracy"] > max(before)
        sums, counts = tally.tolist()
        record: Record = {
            "epoch": epoch + 1,
            "steps": self.progress.step,
            "learning_rate": self.prepared.optimiser.param_groups[0]["lr"],
            "training": {
                name: total / count
                for name, total, count in zip(FIGURES, sums, counts, strict=True)
                # A mean over some of the samples would mislead; h may be infinite.
                if count == counts[0] and math.isfinite(total)
            }
            | self._overshoot(),
            "validation": found,
            "best": best,
        }
        records = [*self.progress.records, record]
        self.progress = Progress(epoch=epoch + 1, step=self.progress.step, records=records)
        if best and self.team.rank == 0:
            told = f"{self.plan.model.name}, epoch {epoch + 1}"
            write_tensors(self.folder.path / BEST, self.prepared.module.state_dict(), told)
        self._save()
        if self.team.rank == 0:
            self.folder.put(LOG, _lines(records).encode())
            self.watch.said(
                f"epoch {epoch + 1} of {self.plan.epochs}: loss {sums[0] / counts[0]:.3g}, "
                f"validation {100 * found['accuracy']:.1f} % right{', the best' if best else ''}"
            )

    def _overshoot(self) -> dict[str, int]:
        """For how many samples of the epoch it was checked whether the perturbation raises
        loss - h, and for how many it does not; nothing where none was."""
        tallies = [protocol.tally for protocol in self.prepared.protocols.values()]
        found = {}
        for name in CHECKS:
            own = sum(getattr(tally, name) for tally in tallies)
            # Tallies go on over epochs and starts.
            before = sum(record["training"].get(name, 0) for record in self.progress.records)
            found[name] = sum(self.team.gather(own)) - before
        return found if any(found.values()) else {}

    def _save(self) -> None:
        prepared = self.prepared
        own = {n: protocol.state_dict() for n, protocol in prepared.protocols.items()}
        merged = {n: state for states in self.team.gather(own) for n, state in states.items()}
        if self.team.rank == 0:
            Checkpoint.take(self.progress, prepared.module, prepared.optimiser, merged).save(
                self.folder.path
            )
        self.team.wait()

    def _diverged(self, error: FloatingPointError, epoch: int, batch: int) -> FloatingPointError:
        kept = Checkpoint.load(self.folder.path)
        what = (
            "there is no checkpoint before it"
            if kept is None
            else f"the checkpoint of step {kept.progress.step} stays in {self.folder.path}"
        )
        return FloatingPointError(
            f"epoch {epoch + 1}, batch {batch + 1}: {error}; {what}. Begin again in another folder "
            "with a smaller --lr or --epsilon"
        )

    def _finish(self) -> None:
        """The log as it should be, and the card of the best epoch's network."""
        if self.team.rank == 0:
            if not self.folder.finished(FINISHED):
                self._judge()
            text = (self.folder.path / RESULTS).read_text(encoding="utf-8")
            self.outcome.results = json.loads(text)
        self.team.wait()

    def _judge(self) -> None:
        prepared, records = self.prepared, self.progress.records
        prepared.module.load_state_dict(load_file(self.folder.path / BEST))
        results = results_of(prepared, records)
        texts = {
            LOG: _lines(records),
            LABELS: json_text(list(prepared.model.labels or ())),
            MODEL: _trained(prepared).text(),
            CARD: card_text(prepared, results, self.folder.path),
            RESULTS: json_text(results),
        }
        files = {name: text.encode() for name, text in texts.items()}
        self.folder.write(FINISHED, files, also=(BEST, WEIGHTS))


def _trained(prepared: PreparedTrain) -> Trained:
    return Trained(
        model=prepared.builder, weights=BEST, labels=LABELS, preprocess=prepared.model.preprocess
    )


def _lines(records: Sequence[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
