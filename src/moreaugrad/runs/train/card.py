"""The model card: what a network learnt from, how, and what it achieves."""

from __future__ import annotations

from pathlib import Path

from moreaugrad.files.names import shown
from moreaugrad.files.units import Record
from moreaugrad.models.loading import TRAINED, own_code
from moreaugrad.reports.studies import escaped, table_lines
from moreaugrad.runs.plans.toml import plan_toml
from moreaugrad.runs.train.measure import MEANING, measured_table
from moreaugrad.runs.train.prepare import PreparedTrain


def chosen_words(prepared: PreparedTrain, results: Record) -> str:
    return (
        f"Of epoch {results['epoch']} of {prepared.plan.epochs}, the best by accuracy on the "
        "held-out images, which makes the figures on these optimistic."
    )


def card_text(prepared: PreparedTrain, results: Record, folder: Path) -> str:
    """The card in Markdown."""
    model, notes = prepared.model, prepared.notes
    classes = model.labels or ()
    code = prepared.builder if own_code(prepared.builder) else ""
    # As in `config.toml`: where the images lie on one machine is nobody's business.
    settings = shown(plan_toml(prepared.plan, folder))
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
        chosen_words(prepared, results),
        "",
        *table_lines(measured_table(results)),
        "",
        MEANING,
        "",
        "## Settings",
        "",
        *(f"- {escaped(note)}" for note in notes),
        *([""] if notes else []),
        *("    " + line if line else "" for line in settings.removesuffix("\n").split("\n")),
        "",
        "Versions: " + ", ".join(f"{name} {v}" for name, v in results["versions"].items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def _data(prepared: PreparedTrain) -> str:
    data, test, examples = prepared.plan.data, prepared.test, prepared.training
    tested = "no test images" if test is None else f"{len(test)} of the part `{data.test}` to test"
    return (
        f"{escaped(examples.name)}: {len(examples)} images to train on, "
        f"{len(prepared.validation)} held out of the same part (`{data.split}`) to "
        f"choose the epoch by, {tested}."
    )
