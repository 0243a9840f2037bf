"""An explanation in words, on one screen whatever its size."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable

from torch import Tensor

from moreaugrad.explainers.batch import ExplainedBatch
from moreaugrad.files.foreign import shown, some
from moreaugrad.pictures.wording import NARROW, count, duration, percent

WIDTH = 100
"""Characters of a line."""
MOST = 3
"""Classes, statuses and problems that a batch names."""
LABEL = 40
"""Characters of a label."""


def described(batch: ExplainedBatch) -> str:
    """Method, shapes, targets, status, error, zeros and cost; of several samples a summary."""
    size = len(batch)
    rows = {"maps": _shapes(batch)}
    if size:
        rows |= {
            "target": _targets(batch) if size > 1 else answer(batch, 0),
            "status": statuses(batch),
            "error": _spread(batch.error, percent, "not estimated"),
            "zeros": _spread(batch.zeros, percent),
            "evaluations": _spread(batch.evaluations, count),
        }
    if size and batch.seconds is not None:
        rows["time"] = _spread(batch.seconds, duration) + (" a sample" if size > 1 else "")
    lines = [line for name, text in rows.items() for line in _wrapped(f"  {name:<13}{text}")]
    if size > 1:
        problems = batch.problems()
        lines += [line for problem in problems[:MOST] for line in _wrapped(f"  {problem}")]
        lines += [f"  and {len(problems) - MOST} more: .problems()"] * (len(problems) > MOST)
    head = f"Explanation of {size} sample{'' if size == 1 else 's'} by {batch.method}"
    return "\n".join([head, *lines])


def named(batch: ExplainedBatch, index: int) -> str:
    """A class by its label and its index."""
    label = batch.labels.get(index)
    return batch.label(index) if label is None else f"{shorter(label)} ({index})"


def shorter(label: str) -> str:
    """A label on one line, cut where it is too long."""
    words = " ".join(shown(label).split())
    return words if len(words) <= LABEL else f"{words[: LABEL - 1]}…"


def answer(batch: ExplainedBatch, row: int) -> str:
    """The target of one sample with its probability, and the prediction where that is another."""
    target, prediction = int(batch.target[row]), int(batch.prediction[row])

    def likely(index: int) -> str:
        chance = (
            "" if batch.probabilities is None else percent(float(batch.probabilities[row, index]))
        )
        return f"{named(batch, index)}{chance and ': '}{chance}"

    where = "" if batch.position is None else f" at {tuple(batch.position[row].tolist())}"
    if batch.probabilities is None:  # a regression predicts no class
        return f"{likely(target)}{where}"
    other = "" if target == prediction else f"; prediction {likely(prediction)}"
    return f"{likely(target)}{where}{other}"


def statuses(batch: ExplainedBatch) -> str:
    """How the computation ended, in words; of several samples how many ended how."""
    if len(batch) == 1:
        return "; ".join(filter(None, (batch.status[0].message, batch.remedy(0))))
    found = Counter(status.value for status in batch.status).most_common()
    return some([f"{number} {words}" for words, number in found], most=MOST)


def _shapes(batch: ExplainedBatch) -> str:
    shapes = some((str(list(part.shape)) for part in batch.parts), " + ", most=MOST)
    first = batch.parts[0]
    return f"{shapes} {str(first.dtype).removeprefix('torch.')}, {first.device}"


def _targets(batch: ExplainedBatch) -> str:
    found = Counter(batch.target.tolist()).most_common()
    classes = some([f"{number} × {named(batch, k)}" for k, number in found], most=MOST)
    if batch.probabilities is None:
        return classes
    same = int((batch.target == batch.prediction).sum())
    return f"{classes}; {same} of {len(batch)} are the prediction"


def _spread(values: Tensor, words: Callable[[float], str], unknown: str = "unknown") -> str:
    """The median, and the ends where they differ."""
    known = values[values.isfinite()].double() if values.is_floating_point() else values.double()
    if not len(known):
        return unknown
    low, middle, high = (words(float(v)) for v in (known.min(), known.median(), known.max()))
    missing = f", {unknown} of {len(values) - len(known)}" if len(known) < len(values) else ""
    return (low if low == high else f"{middle} ({low} to {high})") + missing


def _wrapped(text: str) -> list[str]:
    """On two lines at most, with signs that every terminal shows."""
    text = text.replace(NARROW, " ").replace("−", "-")
    return textwrap.wrap(text, WIDTH, subsequent_indent=" " * 15, max_lines=2, placeholder=" ...")
