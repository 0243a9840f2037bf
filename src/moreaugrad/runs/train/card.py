"""The model card: what a network learnt from, how, and what it is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from moreaugrad.files.names import shown
from moreaugrad.models.sources import own_code
from moreaugrad.models.trained import TRAINED
from moreaugrad.runs.markdown import escaped
from moreaugrad.runs.records import Record, versions
from moreaugrad.runs.train.judge import judge
from moreaugrad.runs.train.plan import plan_toml
from moreaugrad.runs.train.prepare import PreparedTrain

MEANING = (
    "Gini: of the gradient of the true class's logit with respect to the network's input, over all "
    "its entries; the mean over pictures. One step: of the loss, in the network's input units, not "
    "clipped to valid pixels; a network that withstands one step need not withstand more."
)


def results_of(prepared: PreparedTrain, records: Sequence[Mapping[str, Any]]) -> Record:
    """What the network as it is, that of the best epoch, is worth."""
    chosen = next(record for record in reversed(records) if record["best"])
    results: Record = {
        "epoch": chosen["epoch"],
        "validation": judge(prepared, prepared.validation),
        "versions": versions(),
    }
    if prepared.test is not None:
        results["test"] = judge(prepared, prepared.test)
    return results


def card_text(prepared: PreparedTrain, results: Record, folder: Path) -> str:
    """The card in Markdown."""
    plan, model = prepared.plan, prepared.model
    classes = model.labels or ()
    code = prepared.builder if own_code(prepared.builder) else ""
    # As in `config.toml`: where the pictures lie on one machine is nobody's business.
    settings = shown(plan_toml(plan, folder))
    best = (
        f"Of epoch {results['epoch']} of {plan.epochs}, the best by accuracy on the held-out "
        "pictures, which makes the figures on these optimistic."
    )
    lines = [
        f"# {escaped(model.name)}, trained by moreaugrad",
        "",
        f"A classifier of {len(classes)} classes: {', '.join(map(escaped, classes))}.",
        "",
        "## Use",
        "",
        f"    moreaugrad explain IMAGE --model {TRAINED}:FOLDER" + (" --trust" if code else ""),
        "",
        "with the folder that this card lies in."
        + (f" --trust lets the code be run that builds it, {escaped(code)}." if code else ""),
        "",
        "## Data",
        "",
        _data(prepared),
        "",
        "## Results",
        "",
        best,
        "",
        *_table(results),
        "",
        MEANING,
        "",
        "## Settings",
        "",
        *(f"- {escaped(note)}" for note in prepared.notes),
        *([""] if prepared.notes else []),
        *("    " + line if line else "" for line in settings.removesuffix("\n").split("\n")),
        "",
        "Versions: " + ", ".join(f"{name} {v}" for name, v in results["versions"].items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def _data(prepared: PreparedTrain) -> str:
    data, test = prepared.plan.data, prepared.test
    tested = (
        "no test pictures"
        if test is None
        else f"{len(test.examples)} of the part `{data.test}` to test"
    )
    return (
        f"{escaped(prepared.loader.examples.name)}: "
        f"{len(prepared.loader.examples)} pictures to train on, "
        f"{len(prepared.validation.examples)} held out of the same part (`{data.split}`) to "
        f"choose the epoch by, {tested}."
    )


def _table(results: Record) -> list[str]:
    parts = [part for part in ("validation", "test") if part in results]
    attacks = list(results["validation"]["robustness"])
    rows = [("accuracy", [_share(results[p]) for p in parts])]
    rows.append(("Gini", [_gini(results[p]["gini"]) for p in parts]))
    rows += [
        (f"accuracy, one step, {name}", [_share(results[p]["robustness"][name]) for p in parts])
        for name in attacks
    ]
    return [
        f"| | {' | '.join(parts)} |",
        f"|---|{'---|' * len(parts)}",
        *(f"| {name} | {' | '.join(values)} |" for name, values in rows),
    ]


def _share(found: Record) -> str:
    return f"{100 * found['accuracy']:.1f} % of {found['count']}"


def _gini(found: Record) -> str:
    return "undefined" if found["mean"] is None else f"{found['mean']:.3f} of {found['count']}"
