"""Inputs through networks and methods: what each network says of each input."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from moreaugrad.explainers.explanation import Explanation
from moreaugrad.files.names import readable
from moreaugrad.runs.cases import Case, Sample
from moreaugrad.runs.pace import Pace
from moreaugrad.runs.prepare import Prepared, Subject
from moreaugrad.runs.records import Record
from moreaugrad.runs.results import Failure, Result, result
from moreaugrad.runs.variants import Variant
from moreaugrad.score.chunks import Chunks

TROUBLE = (ValueError, TypeError, FloatingPointError, MemoryError, RuntimeError, AssertionError)
"""What a method or a network raises for an input that does not suit it."""

DRAWS = 16
"""Passes that one sample of a smoothed method fills: so few samples make up a whole chunk."""
FULL_CHUNKS = 4

Views = Sequence[Sample]
"""An input as each network takes it in."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Answer:
    """What one network says of an input. told: its name, its prediction, and the class explained,
    where there is a map."""

    subject: Subject
    sample: Sample
    told: Record
    results: Sequence[Result]


class Explaining:
    """Tells `fail` what could not be done, and `pace` what was."""

    def __init__(self, prepared: Prepared, pace: Pace, fail: Callable[[Failure], None]) -> None:
        self.prepared, self.pace, self.fail = prepared, pace, fail

    def answers(self) -> Iterator[list[list[Answer]]]:
        """Group by group, those to each input, one a network."""
        for group in self._groups():
            by_network = [
                self._answers(subject, samples)
                for subject, samples in zip(
                    self.prepared.subjects, zip(*group, strict=True), strict=True
                )
            ]
            yield [list(answers) for answers in zip(*by_network, strict=True)]

    def _groups(self) -> Iterator[list[Views]]:
        """Readable inputs of one shape, few enough that some are finished soon.

        A photo fills a chunk of passes with the draws of its noise alone; small pictures share it.
        """
        group: list[Views] = []
        for case in self.prepared.cases:
            try:
                views = self._views(case)
            except (ValueError, OSError, MemoryError) as error:
                self.fail(Failure(title=case.title, message=line(error)))
                self.pace.skipped(case, self.prepared.wanted(case))
                continue
            if group and (
                [sample.x.shape for sample in group[0]] != [sample.x.shape for sample in views]
                or len(group) >= min(_group_size(sample.x) for sample in views)
            ):
                yield group
                group = []
            group.append(views)
        if group:
            yield group

    def _views(self, case: Case) -> Views:
        asked = [subject.network.model.preprocess for subject in self.prepared.subjects]
        loaded = {preprocess: case.load(preprocess) for preprocess in dict.fromkeys(asked)}
        return [loaded[preprocess] for preprocess in asked]

    def _answers(self, subject: Subject, samples: Sequence[Sample]) -> list[Answer]:
        batch = subject.network.batch([sample.x for sample in samples])
        found: list[list[Result]] = [[] for _ in samples]
        for variant in subject.variants:
            rows = [
                row for row, sample in enumerate(samples)
                if variant in self.prepared.wanted(sample.case)
            ]  # fmt: skip
            if not rows:
                continue
            made = list(self._explained(subject, variant, samples, batch, rows))
            for row, one in made:
                found[row].append(one)
            taken = [one.record["evaluations"] for _, one in made]
            self.pace.after(variant, taken, len(rows))
        return [
            Answer(subject=subject, sample=sample, told=_told(subject, x, results), results=results)
            for sample, x, results in zip(samples, torch.split(batch, 1), found, strict=True)
        ]

    def _explained(
        self,
        subject: Subject,
        variant: Variant,
        samples: Sequence[Sample],
        batch: Tensor,
        rows: list[int],
    ) -> Iterator[tuple[int, Result]]:
        """The maps of a group; where that fails, of each sample by itself, to find the culprit."""
        began = time.perf_counter()

        def progress(done: float, total: int) -> None:
            self.pace.during(variant, done)

        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                explanation = variant.explainer.explain(
                    batch[rows], subject.target, progress=progress
                )
        except TROUBLE as error:
            if len(rows) == 1:
                title = samples[rows[0]].case.title
                self.fail(Failure(title=title, method=variant.key, message=line(error)))
                return
            for row in rows:
                yield from self._explained(subject, variant, samples, batch, [row])
            return
        notes = list(dict.fromkeys(str(item.message) for item in caught))
        elapsed = time.perf_counter() - began
        spent = explanation.evaluations.sum().clamp(min=1)
        for place, row in enumerate(rows):
            one: Explanation = explanation[place]
            share = float(one.evaluations[0] / spent)
            made = result(
                variant, samples[row], one, elapsed * share, notes,
                photo=subject.network.model.preprocess.pixels(samples[row].x),
                style=self.prepared.job.pictures,
            )  # fmt: skip
            if not bool(made.map.isfinite().all()):
                title, status = samples[row].case.title, one.status[0]
                why = f"the map is not finite: {status.message}; {status.remedy}"
                self.fail(Failure(title=title, method=variant.key, message=why))
            yield row, made


def _told(subject: Subject, x: Tensor, results: Sequence[Result]) -> Record:
    network = subject.network
    told: Record = {
        "model": readable(network.model.name),
        "prediction": [
            {"class": index, "label": network.label(index), "probability": probability}
            for index, probability in _prediction(subject, x)
        ],
    }
    if results:
        target = results[0].target
        told["target"] = {"class": target, "label": network.label(target)}
    return told


def _prediction(subject: Subject, x: Tensor) -> list[tuple[int, float]]:
    """Empty for an input that the network cannot process, whose maps have failed for that too."""
    try:
        return subject.network.predict(x, subject.task)[0]
    except TROUBLE:
        return []


def _group_size(x: Tensor) -> int:
    passes = Chunks.of(None, x.reshape(1, -1)).size
    return 1 if passes <= DRAWS else FULL_CHUNKS * passes // DRAWS


def line(error: BaseException) -> str:
    """An error in one line, which a record can hold."""
    text = readable(" ".join(str(error).split()))
    return text or type(error).__name__
