"""The page of a recommendation, in words for people, and its table; read from its file."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moreaugrad.files.foreign import number_name, read_json
from moreaugrad.files.units import Record
from moreaugrad.pictures.wording import NARROW, count, duration, number
from moreaugrad.reports.content import Advice, Entry, RecommendationPage, Table
from moreaugrad.reports.folder import PAGE, read_config, read_environments
from moreaugrad.reports.fronts import front_chart
from moreaugrad.reports.page import page_files
from moreaugrad.reports.recommendation import (
    AS_CHEAP,
    COST,
    FAITHFULNESS,
    GINI,
    ROBUSTNESS,
    SPARSITY,
    STABILITY,
    TESTED,
)
from moreaugrad.reports.studies import Findings

RECOMMENDATION, TABLE = "recommendation.json", "table.md"
NAMES: Mapping[str, str] = {
    SPARSITY: "zeros", GINI: "Gini", ROBUSTNESS: "kept under attack", FAITHFULNESS: "AOPC",
    STABILITY: "kept in other networks", COST: "evaluations",
}  # fmt: skip
"""Of criteria, in the order of columns."""
ORDER = tuple(NAMES)
FRACTIONS = (SPARSITY, ROBUSTNESS, STABILITY)
SIGMA = "sigma"
AGAIN: Mapping[str, str] = {
    "data": "config.toml in this folder repeats the run: moreaugrad recommend --config config.toml "
    "--images 50 --time 2h --out more. ",
    "files": "config.toml in this folder names the images that were measured and repeats the run: "
    "moreaugrad recommend --config config.toml --time 2h --out more. For more images, name all: "
    "moreaugrad recommend photos/*.jpg --config config.toml --images 50 --time 2h --out more. ",
    "memory": "",
}
"""How the run is repeated, by where its inputs are from."""


def recommended_files(folder: Path) -> tuple[dict[str, bytes], bytes]:
    """The page's files, and the table in Markdown, of the recommendation in a folder.

    Errors: ValueError for one that is not finished, and for a damaged file.
    """
    file = folder / RECOMMENDATION
    if not file.is_file():
        raise ValueError(f"{folder}: expected a finished run, but it holds no {RECOMMENDATION}")
    record = read_json(file, "a recommendation")
    _, _, text = read_config(folder)
    try:
        page = _page(folder, record, text)
        return page_files(page, PAGE), _findings(record).markdown().encode()
    except (KeyError, TypeError, AttributeError, IndexError, StopIteration) as error:
        raise ValueError(f"{file}: expected a recommendation") from error


def _findings(record: Record) -> Findings:
    """Without what a clock says, so that equal runs have equal tables."""
    choices = [
        f"{one['title']}: {_words(_candidate(record, one['chosen']))}: {_choice(record, one)}"
        for one in record["purposes"]
    ]
    return Findings(
        title="Recommendation", lead=_lead(record), tables=[_table(record, seconds=False)],
        notes=[*choices, *_notes(record), *_background(record).values()],
    )  # fmt: skip


def _page(folder: Path, record: Record, text: str) -> RecommendationPage:
    advice = [_advice(record, one) for one in record["purposes"]]
    facts = {"model": record["model"], "images": str(record["images"])}
    facts["candidates"] = str(len(record["candidates"]))
    used = read_environments(folder)
    if used:
        versions = used[0]["versions"]
        facts["versions"] = f"moreaugrad {versions['moreaugrad']}, torch {versions['torch']}"
        facts["device"] = used[0].get("accelerator", used[0]["device"])
    return RecommendationPage(
        title=f"Which explanation to use for {record['model']}", sections=[], lead=_lead(record),
        command=record["command"], facts=facts, notes=_notes(record), settings=text,
        tables=[_table(record, seconds=True)], charts=[front_chart(record, NAMES)],
        advice=advice, background=_background(record),
        points=json.dumps(_points(record), ensure_ascii=False),
    )  # fmt: skip


def _lead(record: Record) -> str:
    images, candidates = record["images"], len(record["candidates"])
    what = (
        f"{candidates} candidate{'s' * (candidates != 1)}, methods with settings, on the same "
        f"{images} image{'s' * (images != 1)}."
    )
    if images < record["images_needed"]:
        return what
    return (
        f"{what} Those called tied are not shown to differ by these images: of them the cheapest "
        f"is recommended, and of those that take at most {AS_CHEAP:g} times as many gradient "
        "evaluations as that, the one with the best mean."
    )


def _candidate(record: Record, label: str) -> Record:
    found: Record = next(one for one in record["candidates"] if one["label"] == label)
    return found


def _words(candidate: Record) -> str:
    """`smoothgrad at sigma 0.2`, with the label where it says more."""
    method, label = candidate["method"], candidate["label"]
    sigma = candidate["settings"].get(SIGMA)
    words, usual = method, method
    if sigma is not None:
        level = sigma if isinstance(sigma, str) else number_name(sigma)
        words, usual = f"{method} at sigma {level}", f"{method}-{level}"
    return words if label in (method, usual) else f"{words} ({label})"


def _value(candidate: Record, criterion: str, *, interval: bool = True) -> str:
    found = candidate["values"][criterion]
    if found["mean"] is None:
        return "unknown"
    text, span = _number(criterion, found["mean"]), _span(criterion, found)
    return f"{text} [{span}]" if interval and span else text


def _span(criterion: str, found: Mapping[str, Any]) -> str:
    if found["low"] is None or found["low"] == found["high"]:
        return ""
    low, high = (_number(criterion, found[end]) for end in ("low", "high"))
    return f"{low.removesuffix(f'{NARROW}%')} to {high}"


def _number(criterion: str, value: float) -> str:
    if criterion in FRACTIONS:
        return f"{100 * value:.0f}{NARROW}%".replace("-", "−")
    return count(value) if criterion == COST else f"{value:.2f}".replace("-", "−")


def _choice(record: Record, purpose: Record) -> str:
    """The recommended candidate in numbers, but for its time."""
    one = _candidate(record, purpose["chosen"])
    parts = [f"{_value(one, SPARSITY, interval=False)} zeros"]
    for criterion, (before, after) in {
        ROBUSTNESS: ("keeps", f" of its largest {_top(record)} under attack"),
        FAITHFULNESS: ("AOPC", ""), STABILITY: ("shares", " with other networks"),
    }.items():  # fmt: skip
        if criterion in one["values"]:
            known = one["values"][criterion]["mean"] is not None
            words = f"{before} {_value(one, criterion)}{after}"
            parts.append(words if known else f"“{NAMES[criterion]}” unknown")
    taken = _value(one, COST, interval=False)
    return f"{', '.join(parts)}; {taken} evaluation{'s' * (taken != '1')} a map."


def _top(record: Record) -> str:
    return f"{number(100 * record['top'])}{NARROW}%"


def _advice(record: Record, purpose: Record) -> Advice:
    one = _candidate(record, purpose["chosen"])
    seconds = "" if one["seconds"] is None else f" ({duration(one['seconds'])})"
    words = _choice(record, purpose).removesuffix(" a map.")
    return Advice(
        title=purpose["title"], choice=_words(one), summary=f"{words}{seconds} a map.",
        reasons=list(_reasons(record, purpose)), command=one["command"], python=one["python"],
    )  # fmt: skip


def _reasons(record: Record, purpose: Record) -> Iterator[str]:
    """Why this one, and what it costs by the other criteria."""
    criterion = purpose["criterion"]
    chosen, best = (_candidate(record, purpose[name]) for name in ("chosen", "best"))
    among = f", of {purpose['among']}" if purpose["among"] else ""
    considered, tied = len(purpose["considered"]), purpose["tied"]
    known, needed = best["values"][criterion]["count"], record["images_needed"]
    if considered == 1:
        yield f"It is the only one{among}."
    elif known < needed:
        yield (
            f"The best mean of {considered} by “{NAMES[criterion]}”{among}: a guess, because it is "
            f"known on {known} image{'s' * (known != 1)}, and fewer than {needed} cannot tell "
            "candidates apart."
        )
    elif len(tied) == 1:
        yield f"The best of {considered} by “{NAMES[criterion]}”{among}: no other is tied with it."
    else:
        others = ", ".join(label for label in tied if label != chosen["label"])
        yield (
            f"Tied with the best of {considered} by “{NAMES[criterion]}”{among}: {others}. None "
            f"of them is cheaper by more than a factor of {AS_CHEAP:g}"
            + ("." if chosen is best else f"; {best['label']} has the best mean, "
               f"{_value(best, criterion)}{_gap(criterion, purpose['difference'])}.")
        )  # fmt: skip
    if "baselines" in chosen["settings"]:
        yield (
            "Its maps compare an image with baselines, here the images of this run. The command "
            "draws them from its own images; in Python they are the tensor baselines, [M, C, H, W]."
        )
    for other in TESTED:
        if other in chosen["values"] and (other != criterion or purpose["among"]):
            yield _compared(record, chosen, other)


def _gap(criterion: str, difference: Mapping[str, Any]) -> str:
    """The difference on the same images."""
    if difference["mean"] is None:
        return ""
    span = _span(criterion, difference)
    return f" (difference {_number(criterion, difference['mean'])}{f' [{span}]' if span else ''})"


def _compared(record: Record, chosen: Record, criterion: str) -> str:
    found, name = chosen["values"][criterion], NAMES[criterion]
    best = next((c for c in record["candidates"] if c["values"][criterion].get("best")), None)
    if best is None or found["mean"] is None:
        return f"By “{name}” nothing is known of it."
    if best is chosen:
        return f"By “{name}” it has the best mean of all."
    state = (
        "tied with the best of all" if found["tied"]
        else "known on too few images to compare with the best of all" if found.get("few")
        else f"worse than the best of all (p = {number(found['p'])})"
    )  # fmt: skip
    return (
        f"By “{name}” it is {state}: {_value(chosen, criterion)}, "
        f"{best['label']} {_value(best, criterion)}{_gap(criterion, found['difference'])}."
    )


def _table(record: Record, *, seconds: bool) -> Table:
    """A row for each candidate; what is tied with the best by a criterion is marked."""
    criteria = [name for name in ORDER if name in record["criteria"]]
    rows = []
    for one in record["candidates"]:
        entries = [_entry(one["values"][name], name) for name in criteria]
        if seconds:
            known = one["seconds"] is not None
            entries.append(Entry(text=duration(one["seconds"]) if known else ""))
        entries.append(Entry(text="yes" if one["front"] else "no"))
        rows.append((one["label"], entries))
    return Table(
        title="All candidates", head="candidate", rows=rows,
        columns=[
            *(NAMES[name] + (" ↑" if name in TESTED else " ↓" if name == COST else "")
              for name in criteria),
            *(["time"] if seconds else []), "on the front of all",
        ],
    )  # fmt: skip


def _entry(found: Mapping[str, Any], criterion: str) -> Entry:
    if criterion in TESTED and found["mean"] is not None:
        states = {"best mean": "best", "tied": "tied", "too few values": "few"}
        notes = [next((words for words, key in states.items() if found.get(key)), "worse")]
    else:
        notes = []
    notes += [f"{found[what]} {what}" for what in ("failed", "undefined") if found[what]]
    return Entry(
        text="" if found["mean"] is None else _number(criterion, found["mean"]),
        interval=_span(criterion, found), best=bool(found.get("tied")), note=", ".join(notes),
    )  # fmt: skip


def _notes(record: Record) -> list[str]:
    """What is missing."""
    images, needed = record["images"], record["images_needed"]
    found = []
    if images < needed:
        found.append(
            f"{images} image{'s' * (images != 1)} cannot tell candidates apart: with fewer than "
            f"{needed}, no difference is significant at {_level(record)}, and all are called tied. "
            "The best means are recommended: they are guesses."
        )
    if record["left_out"]:
        found.append(
            f"Left out for want of time: {'; '.join(record['left_out'])}. More time (--time) "
            "measures them."
        )
    found += [f"{text}." for text in record.get("unusable", ())]
    return found + [f"Failed: {text}" for text in record["failures"]]


def _level(record: Record) -> str:
    return f"{100 * record['confidence']:g}{NARROW}%"


def _background(record: Record) -> dict[str, str]:
    """How sure it is, how it was measured, and what would change it."""
    return {
        "How sure this is": "By each criterion, the candidates called tied contain the best one "
        f"with {_level(record)} confidence, for images drawn as these were. "
        "The test is one of flips of signs, exact up to 12 images; its statistic is the largest "
        "difference to any candidate, so that many candidates need no further correction. With "
        "few images only large differences are seen: tied does not mean equal. Intervals of means "
        "are exact for symmetric values below ten images, and Student's t from ten on; too few "
        "images for the confidence have none. They are not corrected for their number.",
        "How it was measured": "Attacks change each image by an L2 norm of at most "
        f"{number(record['epsilon'] or 0)} (root mean square {number(record['rms'])} of values in "
        f"0 to 1), keep the class, and aim at the overlap of the largest {_top(record)} of the "
        f"entries: {record['steps']} step{'s' * (record['steps'] != 1)} by the derivative of "
        f"{'the map itself, as many by that of ' if record['exact'] else ''}SmoothGrad (at the "
        "map's noise level, if it has one), and twice as many by that of the simple gradient; for "
        "each image the worst counts. "
        "Stronger attacks find more, so this is no certificate. An image on which all failed is "
        "counted as failed and is in no mean.",
        "What could change the answer": "More images and time (--images 50 --time 2h) tell more "
        "candidates apart; so may another size of the attacks (--rms), other noise levels "
        "(--sigmas) and sparsities (--sparsities), and more evaluations a map (--noise-samples, "
        f"--quality). {AGAIN[record.get('source', 'data')]}The folder evaluation is a run of its "
        "own: moreaugrad report evaluation --out page shows its maps.",
    }  # fmt: skip


def _points(record: Record) -> Record:
    """What the chart is drawn of: axes, and values with their intervals as texts."""
    criteria: Sequence[str] = [name for name in ORDER if name in record["criteria"]]
    return {
        "axes": [
            {"key": name, "label": NAMES[name], "better": "low" if name == COST else "high",
             "log": name == COST, "percent": name in FRACTIONS}
            for name in criteria
        ],
        "points": [
            {
                "label": one["label"], "method": one["method"],
                "values": {name: one["values"][name]["mean"] for name in criteria},
                "texts": {name: _value(one, name) for name in criteria},
                "spans": {
                    name: [one["values"][name]["low"], one["values"][name]["high"]]
                    for name in criteria
                },
                "chosen": [p["title"] for p in record["purposes"] if p["chosen"] == one["label"]],
            }
            for one in record["candidates"]
        ],
    }  # fmt: skip
