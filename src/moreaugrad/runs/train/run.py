"""Trains by a plan: epoch after epoch into a directory from which it resumes."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar

import torch
from safetensors.torch import load_file
from torch import Tensor

from moreaugrad.files.atomic import remove_files
from moreaugrad.files.foreign import some
from moreaugrad.files.tensors import read_tensors, write_tensors
from moreaugrad.files.units import Record
from moreaugrad.models.loading import FILE as MODEL
from moreaugrad.models.loading import FINISHED, LABELS, Trained
from moreaugrad.reports.events import EVENTS, events
from moreaugrad.reports.studies import LOG, RESULTS, STUDY_FILES, Findings
from moreaugrad.runs.directory import RunDirectory, json_text, versions
from moreaugrad.runs.engine import Files, Observer, Run
from moreaugrad.runs.plans.train import TrainPlan
from moreaugrad.runs.processes import Processes
from moreaugrad.runs.train.averaging import averaged, averaging
from moreaugrad.runs.train.measure import (
    MEANING,
    card_text,
    chosen_words,
    epochs_table,
    measure,
    measured_table,
    validate,
)
from moreaugrad.runs.train.prepare import (
    PreparedTrain,
    TrainEstimate,
    estimate_train,
    prepare_train,
)
from moreaugrad.training import LOSSES
from moreaugrad.training.checkpoint import STATES, WEIGHTS, Checkpoint, Progress
from moreaugrad.training.loop import FIGURES, SCHEDULES, Trainer

BEST, CARD = "best.safetensors", "card.md"
TYPES = {"bfloat16": torch.bfloat16}
CHECKS = ("checked", "overshot")
"""Of a protocol's tally."""
ALONE = "ddp: there is one process, so that nothing is averaged; torchrun starts several"


class TrainRun(Run[TrainPlan]):
    """Its folder holds `log.jsonl` with a line an epoch, the checkpoint (`last.safetensors` with
    `state-STEP.safetensors`), `best.safetensors`, and, where all is done, the unit of `model.json`,
    `results.json`, `card.md`, tables, `labels.json`, the log and the weights."""

    command = "train"
    shares = False
    patterns: ClassVar[Sequence[str]] = (FINISHED,)
    others: ClassVar[Sequence[str]] = (
        LOG, BEST, LABELS, MODEL, CARD, *STUDY_FILES, WEIGHTS, STATES, f"{EVENTS}/*.tfevents.*",
    )  # fmt: skip

    def __init__(
        self,
        plan: TrainPlan,
        processes: Processes | None = None,
        watch: Observer | None = None,
        *,
        prepared: PreparedTrain | None = None,
    ) -> None:
        """prepared: of the plan, where it is already; otherwise every image is read once."""
        self._given, self.progress = prepared, Progress()
        super().__init__(plan, processes, watch)

    def settled(self, plan: TrainPlan) -> TrainPlan:
        self.prepared = self._given or prepare_train(plan, self.processes, self.watch)
        plan, self.network = self.prepared.plan, self.prepared.network
        self.notes, module = self.prepared.notes, self.prepared.module
        if plan.ddp and self.processes.size > 1:
            assert plan.augment.size is not None
            x = torch.zeros(2, 3, plan.augment.size, plan.augment.size, device=self.network.device)
            module, unused = averaged(module, x, self.processes, plan.seed)
            if unused:
                lost = f"ddp: the output does not depend on {some(unused)}, which stay as they are"
                self.notes = [*self.notes, lost]
        elif plan.ddp:
            self.notes = [*self.notes, ALONE]
        self.trainer = Trainer(
            module, self.prepared.optimiser, list(self.prepared.protocols.values()),
            loss=LOSSES[plan.loss], seed=plan.seed, pieces=plan.shards or 1,
            amp=TYPES[plan.amp] if plan.amp else None,
            total=partial(self.processes.total, ordered=not plan.ddp),
            freeze_statistics=plan.freeze_statistics,
        )  # fmt: skip
        return plan

    def kept(self, directory: RunDirectory) -> bool:
        return (directory.path / WEIGHTS).exists()

    def work(self, directory: RunDirectory) -> None:
        self._resume(directory)
        leads, begun = self.processes.rank == 0, self.progress.epoch
        wanted = leads and begun < self.plan.epochs
        step = (begun + 1) * len(self.prepared.loader)
        with events(directory.path / EVENTS, step) if wanted else nullcontext() as writer:
            for epoch in range(begun, self.plan.epochs):
                self._epoch(epoch, directory)
                _write(writer, self.progress.records[-1])
        if leads and not directory.finished(FINISHED):
            directory.write(FINISHED, self.do(FINISHED, directory), also=(BEST, WEIGHTS))
        if leads:
            self.draw(directory)
        self.processes.wait()

    def _resume(self, directory: RunDirectory) -> None:
        """From the last checkpoint; where it or the best epoch's network is damaged, the training
        begins again, and a warning says so."""
        self.processes.first(lambda: self._remove_damaged(directory))
        found = Checkpoint.load(directory.path)
        if found is not None:
            found.restore(self.prepared.module, self.prepared.optimiser, self.prepared.protocols)
            self.progress = found.progress
            if self.progress.epoch < self.plan.epochs:
                done = f"epoch {self.progress.epoch + 1}, batch {self.progress.batch + 1}"
                self.watch.news(f"resuming from the checkpoint at {done}")

    def _remove_damaged(self, directory: RunDirectory) -> None:
        folder = directory.path
        try:
            found = Checkpoint.load(folder)
            if found is None:
                return
            if found.progress.records:
                read_tensors(folder / BEST, "a checkpoint")
            found.tidy(folder)
        except (ValueError, OSError) as error:
            warnings.warn(f"{error}: the training begins again", stacklevel=2)
            directory.remove(self.patterns)
            remove_files(folder, [WEIGHTS, *(file.name for file in folder.glob(STATES))])

    def _epoch(self, epoch: int, directory: RunDirectory) -> None:
        """From the batch where the training is. Errors: FloatingPointError that says where."""
        prepared, plan = self.prepared, self.plan
        tally = torch.zeros(2, len(FIGURES), dtype=torch.float64)
        if self.progress.tally:
            tally += torch.tensor(self.progress.tally, dtype=torch.float64)
        rate = SCHEDULES[plan.optimiser.schedule]
        every = plan.loading.checkpoint_every
        begun = self.progress.batch
        for number, pieces in enumerate(prepared.batches(epoch, begun), begun):
            step = self.progress.step
            for group in prepared.optimiser.param_groups:
                group["lr"] = plan.optimiser.lr * rate(step, prepared.steps)
            try:
                with averaging():
                    tally += self.trainer.step(pieces, count=plan.batch, step=step)
            except FloatingPointError as error:
                raise self._diverged(error, epoch, number, directory) from error
            except torch.OutOfMemoryError as error:
                raise MemoryError(
                    f"a batch of {plan.batch} images does not fit: use a smaller --batch-size or "
                    "--size, or --amp bfloat16"
                ) from error
            self.progress = replace(
                self.progress, batch=number + 1, step=step + 1, tally=tally.tolist()
            )
            if every and (step + 1) % every == 0 and number + 1 < len(prepared.loader):
                self._save(directory)
            self.watch.pace(step + 1, prepared.steps, f"epoch {epoch + 1} of {plan.epochs}")
        self._close(epoch, tally, directory)

    def _close(self, epoch: int, tally: Tensor, directory: RunDirectory) -> None:
        """Measures the epoch, and writes its record."""
        prepared, leads = self.prepared, self.processes.rank == 0
        found = self.processes.from_first(validate(prepared, prepared.held_out) if leads else None)
        if found["loss"] is None:
            error = FloatingPointError("the loss of the validation images is not finite")
            raise self._diverged(error, epoch, len(prepared.loader) - 1, directory)
        before = [record["validation"]["accuracy"] for record in self.progress.records]
        best = not before or found["accuracy"] > max(before)
        sums, counts = tally.tolist()
        record: Record = {
            "epoch": epoch + 1,
            "steps": self.progress.step,
            "learning_rate": prepared.optimiser.param_groups[0]["lr"],
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
        if best and leads:
            about = f"{self.plan.model.name}, epoch {epoch + 1}"
            write_tensors(directory.path / BEST, prepared.module.state_dict(), about)
        self._save(directory)
        if leads:
            directory.put(LOG, _lines(records))
            self.watch.news(
                f"epoch {epoch + 1} of {self.plan.epochs}: loss {sums[0] / counts[0]:.3g}, "
                f"validation accuracy {100 * found['accuracy']:.1f} %{', the best' if best else ''}"
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
            found[name] = sum(self.processes.gather(own)) - before
        return found if any(found.values()) else {}

    def _save(self, directory: RunDirectory) -> None:
        prepared = self.prepared
        own = {n: protocol.state_dict() for n, protocol in prepared.protocols.items()}
        merged = {n: state for states in self.processes.gather(own) for n, state in states.items()}
        if self.processes.rank == 0:
            taken = Checkpoint.take(self.progress, prepared.module, prepared.optimiser, merged)
            taken.save(directory.path)
        self.processes.wait()

    def _diverged(
        self, error: FloatingPointError, epoch: int, batch: int, directory: RunDirectory
    ) -> FloatingPointError:
        kept = Checkpoint.load(directory.path)
        what = "there is no checkpoint before it"
        if kept is not None:
            what = f"the checkpoint of step {kept.progress.step} stays in {directory.path}"
        return FloatingPointError(
            f"epoch {epoch + 1}, batch {batch + 1}: {error}; {what}. Begin again in another folder "
            "with a smaller --lr or --epsilon"
        )

    def do(self, unit: str, directory: RunDirectory) -> Files:
        """Measures the best epoch's network, and describes it."""
        prepared, records = self.prepared, self.progress.records
        prepared.module.load_state_dict(load_file(directory.path / BEST))
        results: Record = {
            "epoch": next(record["epoch"] for record in reversed(records) if record["best"]),
            "validation": measure(prepared, prepared.validation),
            "versions": versions(),
        }
        if prepared.test is not None:
            results["test"] = measure(prepared, prepared.test)
        model = Trained(
            model=prepared.builder, weights=BEST, labels=LABELS,
            preprocess=prepared.model.preprocess,
        )  # fmt: skip
        findings = Findings(
            title=f"Training of {prepared.model.name}", lead=chosen_words(prepared, results),
            tables=[measured_table(results), epochs_table(records)],
            notes=[MEANING, *prepared.notes],
        )  # fmt: skip
        return {
            LOG: _lines(records),
            LABELS: json_text(list(prepared.model.labels or ())).encode(),
            MODEL: model.text().encode(),
            CARD: card_text(prepared, results, directory.path).encode(),
            RESULTS: json_text(results).encode(),
            **findings.files(),
        }

    def results(self, directory: RunDirectory) -> Record:
        """epochs: records of the finished ones. results: of the best epoch's network, where the
        training is finished."""
        done = directory.finished(FINISHED)
        return {
            "epochs": list(self.progress.records),
            "results": directory.json(RESULTS.removesuffix(".json")) if done else {},
        }

    def estimate(self) -> TrainEstimate:
        return estimate_train(self.prepared, self.trainer)


def _lines(records: Sequence[Mapping[str, Any]]) -> bytes:
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in records).encode()


def _write(writer: Any, record: Mapping[str, Any]) -> None:
    """Writes the figures of an epoch."""
    if writer is None:
        return
    writer.add_scalar("learning rate", record["learning_rate"], record["steps"])
    for part in ("training", "validation"):
        for name, value in record[part].items():
            if name != "count":
                writer.add_scalar(f"{part}/{name}", value, record["steps"])
    writer.flush()
