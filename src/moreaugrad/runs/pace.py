"""How far a job is, in gradient evaluations: what maps took tells what the others will take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from moreaugrad.runs.cases import Case
from moreaugrad.runs.prepare import Prepared
from moreaugrad.runs.results import Failure
from moreaugrad.runs.variants import Variant


class Watch(Protocol):
    """Is told how a job goes on: `done` of about `total` evaluations, news, and what failed."""

    def pace(self, done: float, total: float, doing: str) -> None: ...

    def said(self, news: str) -> None: ...

    def failed(self, failure: Failure) -> None: ...


class Unwatched:
    """Tells nobody."""

    def pace(self, done: float, total: float, doing: str) -> None: ...

    def said(self, news: str) -> None: ...

    def failed(self, failure: Failure) -> None: ...


class Newsless:
    """Passes on all to a watch but the news."""

    def __init__(self, watch: Watch) -> None:
        self.pace, self.failed = watch.pace, watch.failed

    def said(self, news: str) -> None: ...


class Pace:
    """Counts evaluations for a `Watch`. A map is expected to take the mean of those before it."""

    def __init__(self, prepared: Prepared, watch: Watch) -> None:
        self._watch = watch
        self._left = Counter(v.key for case in prepared.cases for v in prepared.wanted(case))
        self._expected = {v.key: float(v.explainer.budget()) for v in prepared.variants}
        self._taken: dict[str, list[int]] = {}
        self._spent = 0.0

    def during(self, variant: Variant, maps: float) -> None:
        """`maps` of a group that is being worked on are done, parts counted."""
        done = self._spent + maps * self._expected[variant.key]
        self._watch.pace(done, self._total(), variant.method)

    def after(self, variant: Variant, evaluations: Sequence[int], maps: int) -> None:
        """A group of `maps` is done; those that did not fail took these evaluations."""
        self._left[variant.key] -= maps
        self._spent += sum(evaluations)
        taken = self._taken.setdefault(variant.key, [])
        taken += evaluations
        if taken:
            self._expected[variant.key] = sum(taken) / len(taken)
        self._watch.pace(self._spent, self._total(), variant.method)

    def skipped(self, case: Case, variants: Sequence[Variant]) -> None:
        """An input that cannot be read."""
        for variant in variants:
            self._left[variant.key] -= 1
        self._watch.pace(self._spent, self._total(), case.title)

    def _total(self) -> float:
        left = sum(count * self._expected[key] for key, count in self._left.items())
        return max(1.0, self._spent + left)
