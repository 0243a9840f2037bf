"""Runs of maps as one page, with their tables as CSV and LaTeX."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from moreaugrad.attacks.catalogue import CLEAN
from moreaugrad.files.units import Record
from moreaugrad.reports.content import Page
from moreaugrad.reports.curves import charts
from moreaugrad.reports.folder import read_environments
from moreaugrad.reports.gallery import networks, sections_of, shortened
from moreaugrad.reports.reading import MapsFolder, failed, stored_words, unusable, why
from moreaugrad.reports.statistics import WORST, Drop, Intervals, Mean, bases, drops, means
from moreaugrad.reports.tables import csv_text, drops_table, latex, mean_tables

CSV, LATEX, DROPS = "summary.csv", "tables.tex", "drops.csv"
REASONS = 12
"""Kinds of failures that the page lists one by one."""
TRUTH = (
    "Scores against the ground truth: how well the magnitude of a map, summed over the channels, "
    "finds the part of the image that makes its class (bright in “ground truth”). AUROC is 0.5 for "
    "chance and 1 at best; for chance the average precision is the part's fraction of the image. "
    "Zeros of a sparse map count as ties: what it leaves out costs it AUROC."
)


def explained_page(run: MapsFolder, *, images: int, command: str = "") -> Page:
    """The page of `explain`, `compare` and `sweep`: inputs with their maps."""
    shown = [record for record in run.inputs if "problem" not in record]
    sections = sections_of(run, images)
    facts = _facts([run])
    tiles = [tile for section in sections for answer in section.answers for tile in answer.tiles]
    notes = [TRUTH] if any("auroc" in tile.scores for tile in tiles) else []
    if len(shown) > len(sections):
        notes.append(
            f"The first {len(sections)} of {len(shown)} inputs are shown; the maps and images of "
            "all are in the folders next to this page."
        )
    return Page(
        title=_explained_title(run, shown), lead=_lead(run), sections=sections,
        command=command, facts=facts, notes=[*notes, *_states([run]), *_left_out(run)],
        settings=run.text,
    )  # fmt: skip


def evaluated_page(
    runs: Sequence[MapsFolder],
    intervals: Intervals,
    *,
    gallery: int,
    base: Sequence[str],
) -> tuple[Page, dict[str, str]]:
    """The page of runs of `evaluate` (and of any others with them), and its tables as texts by the
    names of files."""
    every = [mean for run in runs for mean in means(run, intervals)]
    several = len(runs) > 1
    tables = mean_tables(every, several=several)
    lost = [drop for run in runs for drop in drops(run, bases(run, base), intervals)]
    pairs = [name for run in runs for name in run.metrics if run.metric(name).kind == "pair"]
    notes = [*_states(runs), *(line for run in runs for line in failures(run))]
    notes += [
        f"{f'{run.label}: ' * bool(run.label)}{text}."
        for run in runs
        for text in unusable(run.records)
    ]
    page = Page(
        title=_title(runs),
        lead="How maps change under attacks that keep the class, and what the maps are like. "
        f"Means over images; after them {100 * intervals.confidence:g} % intervals (Student's t) "
        "where there are ten values or more.",
        sections=[s for run in runs for s in sections_of(run, gallery, several=several)],
        facts=_facts(runs), notes=[*notes, *_explanations(every)],
        settings="\n".join(f"# {run.path.name}/config.toml\n{run.text}" for run in runs),
        tables=[*tables, *([drops_table(lost)] if lost else [])],
        charts=charts(every, pairs, "budget"),
    )  # fmt: skip
    texts = {CSV: csv_text(Mean, every), LATEX: latex(tables, intervals.confidence)}
    return page, texts | ({DROPS: csv_text(Drop, lost)} if lost else {})


def _title(runs: Sequence[MapsFolder]) -> str:
    methods = list(dict.fromkeys(name for run in runs for name in run.methods))
    what = f"{len(methods)} methods" if len(methods) > 1 else methods[0]
    images = max(len(run.inputs) - len(run.unreadable) for run in runs)
    where = f"{len(runs)} runs" if len(runs) > 1 else f"{images} image{'s' * (images != 1)}"
    return f"Robustness of {what} on {where}"


def _explained_title(run: MapsFolder, shown: Sequence[Record]) -> str:
    methods = {what["method"] for what in run.methods.values() if "value" not in what}
    cells = run.config["data"].get("source") == "cells"
    kind = "texts" if run.of_texts else "inputs" if run.rates else "images"
    what = "synthetic cells" if cells else kind
    where = f"{len(shown)} {what}"
    if len(shown) == 1:
        where = shortened(str(shown[0].get("text", shown[0]["input"])))
    how = " of two networks" if "compare" in run.config else ""
    if len(methods) > 1:
        return f"{len(methods)} methods{how} on {where}"
    if methods:
        return f"{next(iter(methods))}{how} on {where}"
    sweep = run.config["sweep"]
    return f"{sweep['method']} on {where}, over {sweep['over']}"


def _lead(run: MapsFolder) -> str:
    target = run.config.get("target")
    first = next((r for r in run.records if "target" in r), None)
    what = (
        "each input's predicted class" if target is None
        else "each input's own class" if target == "label"
        else first["target"]["label"] if first else f"class {target}"
    )  # fmt: skip
    names = networks(run)
    computes = "each compute it" if len(names) > 1 else "computes it"
    score = next((w["settings"].get("score") for w in run.methods.values()), None) or "score"
    return f"What in each input raises the {score} of {what}, as {' and '.join(names)} {computes}."


def _facts(runs: Sequence[MapsFolder]) -> dict[str, str]:
    facts: dict[str, str] = {}
    for run in runs:
        names = networks(run)
        facts["model" if len(runs) == 1 else f"model of {run.label}"] = names[0]
        if len(names) > 1:
            facts["compared with"] = names[1]
    kinds = {"texts": all(r.of_texts for r in runs), "inputs": all(r.rates for r in runs)}
    facts[next((kind for kind, all_are in kinds.items() if all_are), "images")] = ", ".join(
        f"{len(run.inputs) - len(run.unreadable)} of {len(run.inputs)}" for run in runs
    )
    used = read_environments(runs[0].path)
    if used:
        versions = used[0]["versions"]
        facts["versions"] = f"moreaugrad {versions['moreaugrad']}, torch {versions['torch']}"
        facts["device"] = used[0].get("accelerator", used[0]["device"])
    return facts


def _states(runs: Sequence[MapsFolder]) -> list[str]:
    """What is missing, and what does not belong together."""
    found = [
        f"{run.label or 'This run'} is not complete: {run.finished} of {run.total} units are "
        f"finished, {f'{run.previews} are previews, ' * bool(run.previews)}and the figures are of "
        "these alone. The command that began it resumes it."
        for run in runs
        if not run.complete
    ]
    for run in runs:
        if run.unreadable and not run.explains:
            names = ", ".join(record["input"] for record in run.unreadable[:5])
            more = ", ..." if len(run.unreadable) > 5 else ""
            found.append(
                f"{run.label}: {len(run.unreadable)} of {len(run.inputs)} images could not be read "
                f"and are left out ({names}{more})."
            )
        if stored := stored_words(run.config.get("maps_as"), run.records):
            found.append(f"{f'{run.label}: ' * bool(run.label)}{stored}.")
        if len(read_environments(run.path)) > 1:
            found.append(
                f"{run.label or 'This run'} was computed with several versions or on several "
                "machines."
            )
    if len({tuple(record["input"] for record in run.inputs) for run in runs}) > 1:
        found.append("The runs are of different images.")
    return found


def _left_out(run: MapsFolder) -> list[str]:
    """Inputs, and maps of inputs, that an explanation is without."""
    found = [f"Left out: {record['problem']}" for record in run.unreadable]
    for record in run.records:
        if "problem" in record:
            found.append(f"Left out: {record['input']}, {record['method']}: {record['problem']}")
    return found


def failures(run: MapsFolder) -> list[str]:
    """Methods and attacks without a result, alike ones counted together."""
    counted = Counter(
        (record["method"], record["attack"], why(record))
        for record in run.records
        if failed(record)
    )
    lines = [
        ", ".join(filter(None, (run.label, method)))
        + ("" if attack == CLEAN else f" under {attack}")
        + f": {count} without a result: {reason}"
        for (method, attack, reason), count in counted.items()
    ]  # fmt: skip
    more = len(lines) - REASONS
    head = f"{run.label}: " if run.label else ""
    return lines[:REASONS] + ([f"{head}{more} more kinds of failures."] if more > 0 else [])


def _explanations(every: Sequence[Mean]) -> list[str]:
    failing = (
        "An attack that failed on an image says nothing about its robustness: such images are "
        "counted as failed and are not in the mean (the mean with their unchanged maps, as in "
        "published studies, is given after it). Metrics without a value there (a zero map, say) "
        "are counted as undefined."
    )
    found = [failing]
    if any(mean.aimed is False for mean in every):
        found.append(
            "An attack changes a metric that it is “not aimed at” only incidentally: the value "
            "does not say how far an attack could change it. --attack matched is aimed at each "
            "metric."
        )
    if any(mean.attack == WORST for mean in every):
        found.append(
            f"“{WORST}” takes for each image, budget and metric the attack with the worst value: "
            "what a method is robust against only by hiding its gradient does not count there."
        )
    return found
