"""How far a process is with its units, in gradient evaluations."""

from __future__ import annotations

from collections.abc import Sequence

from moreaugrad.explainers.progress import Progress
from moreaugrad.runs.evaluate.prepare import PreparedEvaluate
from moreaugrad.runs.evaluate.store import Unit
from moreaugrad.runs.evaluate.threats import Threat
from moreaugrad.runs.pace import Watch


def cost(prepared: PreparedEvaluate, method: str, threat: Threat | None = None) -> int:
    """Evaluations that one sample takes at most: of its clean map, or of an attack with its map."""
    own = prepared.explainers[method].budget()
    if threat is None:
        return own
    return 0 if threat.attack is None else threat.attack.budget() + own


class Meter:
    """Counts for a `Watch`; every map and attack is taken to need all that it may."""

    def __init__(self, prepared: PreparedEvaluate, left: Sequence[Unit], watch: Watch) -> None:
        self._prepared, self._watch, self._spent = prepared, watch, 0.0
        each = {
            method: sum(cost(prepared, method, threat) for threat in [None, *threats])
            for method, threats in prepared.threats.items()
        }
        total = sum(each[unit.method] * len(prepared.block(unit.block)) for unit in left)
        self._total = max(1.0, float(total))

    def progress(self, method: str, threat: Threat | None = None) -> Progress:
        each = cost(self._prepared, method, threat)

        def tell(done: float, _: int) -> None:
            self._tell(self._spent + done * each, method, threat)

        return tell

    def done(self, method: str, samples: int, threat: Threat | None = None) -> None:
        self._spent += samples * cost(self._prepared, method, threat)
        self._tell(self._spent, method, threat)

    def _tell(self, spent: float, method: str, threat: Threat | None) -> None:
        doing = method if threat is None else f"{method}, {threat.title}"
        self._watch.pace(min(spent, self._total), self._total, doing)
