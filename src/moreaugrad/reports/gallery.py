"""Inputs with their maps, as sections of a page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from moreaugrad.attacks.catalogue import CLEAN
from moreaugrad.files.foreign import number_name
from moreaugrad.files.units import Record
from moreaugrad.models import Preprocess
from moreaugrad.pictures import Picture, Style, draw, heatmap, photo
from moreaugrad.pictures.arrays import draw_array, input_picture
from moreaugrad.pictures.slices import heaviest, thinned
from moreaugrad.pictures.wording import count, number, percent
from moreaugrad.reports.content import Answer, Section, Sweep, Tile
from moreaugrad.reports.reading import MapsFolder, failed, why
from moreaugrad.text.explanation import drawn

LONGEST = 60
"""Characters of a text that is a heading."""
FIRST = ("overlay",)
"""Shows where on the photo a map is."""


def networks(run: MapsFolder) -> list[str]:
    tables = [run.config["model"], run.config.get("compare", {}).get("model")]
    names = [
        table["name"] + (f" ({table['weights']})" if "weights" in table else "")
        for table in tables
        if table
    ]
    return names if len(set(names)) == len(names) else [names[0], f"{names[0]}, compared"]


def shortened(text: str) -> str:
    """The beginning of a text, in one line."""
    line = " ".join(text.split())
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1].rstrip()}…"


def sections_of(run: MapsFolder, count: int, *, several: bool = False) -> list[Section]:
    """The first images with their maps; of attacks, those at the largest budget."""
    table: dict[str, Any] = dict(run.config["model"].get("preprocess", {}))
    given: dict[str, Any] = {
        name: tuple(v) if isinstance(v, list) else v for name, v in table.items()
    }
    preprocess = Preprocess(**given)
    return [
        _Gallery(run, preprocess).section(record, several=several)
        for record in [record for record in run.inputs if "problem" not in record][:count]
        if run.input_tensors(record["index"])
    ]


class _Gallery:
    """Sections of a run."""

    def __init__(self, run: MapsFolder, preprocess: Preprocess) -> None:
        self.run, self.preprocess = run, preprocess
        self.style = Style(**run.config.get("style", {}))

    def section(self, record: Record, *, several: bool) -> Section:
        run, index = self.run, record["index"]
        tensors = run.input_tensors(index)
        records = [r for r in run.records if r["index"] == index]
        names, compared = networks(run), record.get("compared")
        own = self._answer(record, records, compared=False, name=names[0] if compared else "")
        label, text, title = record.get("label", ""), record.get("text"), record["input"]
        notes = [f"Class in the data set: {label}."] if label else []
        if text is not None:
            title, notes = shortened(text), [f"{title}."]
        notes += [f"{record['note'].capitalize()}."] if "note" in record else []
        at = {r["target"]["at"] for r in records if "at" in r.get("target", {})}
        notes += [f"Explained is the class of the token “{token}”." for token in sorted(at)]
        picture = None if text is not None else self._input(record, tensors["input"])
        return Section(
            **vars(own),
            title=f"{run.label}: {title}" if several else title,
            photo=picture,
            truth=heatmap(tensors["truth"]) if "truth" in tensors else None,
            sweeps=self._sweeps(records), note=" ".join(notes),
            compared=self._answer(compared, records, compared=True, name=names[-1])
            if compared else None,
            peak=self._peak(records) if tensors["input"].ndim == 4 else 0,
        )  # fmt: skip

    def _input(self, record: Record, x: Tensor) -> Picture | None:
        if "array" not in record:
            return photo(self.preprocess.pixels(x).permute(2, 0, 1))
        found = input_picture(x, record["array"]["rate"])
        return found and thinned(found)

    def _peak(self, records: Sequence[Record]) -> int:
        """The slice of the first map of a volume where most of it is."""
        maps = (self.run.map(r) for r in records if "problem" not in r and self._shown(r))
        return next((heaviest(m, 1)[0] for m in maps if m is not None and m.ndim == 4), 0)

    def _answer(
        self, record: Record, records: Sequence[Record], *, compared: bool, name: str
    ) -> Answer:
        own = [
            (r, self.tile(r)) for r in records
            if self.run.methods[r["method"]].get("compared", False) == compared
            and "value" not in self.run.methods[r["method"]] and self._shown(r)
        ]  # fmt: skip
        return Answer(
            network=name,
            prediction=[(p["label"], p["probability"]) for p in record["prediction"]],
            target=next((r["target"]["label"] for r, _ in own if "target" in r), ""),
            tiles=[tile for _, tile in own],
        )

    def _shown(self, record: Record) -> bool:
        """Clean maps, and those at each attack's largest budget, where they are kept."""
        if "problem" in record:
            return not self.run.explains
        attack = record["attack"]
        if attack != CLEAN and record["epsilon"] != self.run.budgets(attack)[-1]:
            return False
        return self.run.keeps(record)

    def _sweeps(self, records: Iterable[Record]) -> list[Sweep]:
        swept = [r for r in records if "value" in self.run.methods[r["method"]] and self._shown(r)]
        if not swept:
            return []
        sweep = self.run.config["sweep"]
        return [
            Sweep(
                parameter=sweep["over"], limit=limit(sweep),
                values=[self.run.methods[r["method"]]["value"] for r in swept],
                tiles=[self.tile(r) for r in swept],
            )
        ]  # fmt: skip

    def tile(self, record: Record) -> Tile:
        """A map with its numbers."""
        method, attack, epsilon = record["method"], record["attack"], record["epsilon"]
        name = self.run.methods[method]["method"] if self.run.explains else method
        budget = "" if epsilon is None else f" {number_name(epsilon)}"
        title = name if attack == CLEAN else f"{name}, {attack}{budget}"
        if "problem" in record:
            return Tile(title=title, views={}, status="no map", ok=False, warning=why(record))
        found, attacked = record["map"], record.get("attacked")
        warnings = [found["message"], found["remedy"]] if "message" in found else []
        if attacked is not None:
            warnings = [attacked["message"]] if failed(record) else []
        metrics = {k: math.nan if v is None else v for k, v in record["metrics"].items()}
        error = found.get("error", math.nan)
        extra = {"eta": number(found["eta"])} if found.get("eta") else {}
        if not math.isnan(error) and "baseline" in self.run.methods[method]["settings"]:
            extra["completeness error"], error = percent(error), math.nan
        pairs = record.get("interactions", {})
        if pairs:
            extra |= _of_pairs(pairs)
            lacking = [pairs.get("problem"), pairs.get("message"), pairs.get("remedy")]
            words = "; ".join(filter(None, lacking))
            warnings += [f"interactions: {words}"] if words else []
        if attacked is not None:
            extra["distance"] = f"{attacked['distance'] or 0:.3g}"
        return Tile(
            title=title, views=self._views(record),
            status=found["status"] if attacked is None else attacked["status"],
            ok=not found["failed"] and not failed(record),
            warning="; ".join([*filter(None, warnings), *record.get("warnings", [])]) or None,
            zeros=found.get("zeros", math.nan), gini=metrics.pop("gini", math.nan), error=error,
            residual=found.get("residual", math.nan), evaluations=found["evaluations"],
            seconds=None if math.isnan(s := self.run.seconds(record)) else s,
            scores=metrics, extra=extra,
            text=drawn(record["tokens"]) if "tokens" in record else None,
        )  # fmt: skip

    def _views(self, record: Record) -> Mapping[str, Picture]:
        values = None if "tokens" in record else self.run.map(record)
        if values is None or not bool(values.isfinite().all()):
            return {}
        if self.run.rates:
            return self._views_of_array(record, values)
        if values.ndim > 3:
            return {}
        under = self.run.map(record, "input") if "attacked" in record else None
        if under is None:
            under = self.run.input_tensors(record["index"]).get("input")
        pixels = None if under is None else self.preprocess.pixels(under)
        fits = pixels is not None and values.shape[-2:] == pixels.shape[:2]
        z_scores = self.run.map(record, "z_scores") if self.style.certain is not None else None
        views = draw(values, pixels if fits else None, self.style, z_scores)
        if "interactions" in record and pixels is not None and fits:
            from moreaugrad.pictures.pairs import pair_views

            views |= pair_views(record, pixels, self.style)
        return _first(views)

    def _views_of_array(self, record: Record, values: Tensor) -> Mapping[str, Picture]:
        x = self.run.input_tensors(record["index"])["input"]
        z_scores = self.run.map(record, "z_scores") if self.style.certain is not None else None
        rate = self.run.rates[record["index"]]
        views = draw_array(values, x, self.style, z_scores, rate=rate)
        return _first({name: thinned(view) for name, view in views.items()})


def _first(views: Mapping[str, Picture]) -> Mapping[str, Picture]:
    first = [name for name in FIRST if name in views]
    return {name: views[name] for name in dict.fromkeys([*first, *views])}


def _of_pairs(found: Mapping[str, Any]) -> dict[str, str]:
    """Rows on interactions."""
    if "problem" in found:
        return {}
    from moreaugrad.pictures.pairs import certain_pairs

    strongest = "none"
    for pair in certain_pairs(found)[:1]:
        error = float(f"{pair['error']:.1g}")
        strongest = f"{number(pair['value'])} ± {number(error)}"
    taken = count(found["evaluations"])
    return {"strongest pair": strongest, "evaluations of pairs": taken}


def limit(sweep: Mapping[str, Any]) -> str:
    """What a sweep shows at the value 0, in words; of its table in a configuration."""
    settings, over = sweep.get("settings", {}), sweep["over"]
    if over == "sigma":
        return "without Gaussian smoothing"
    if over == "eta":
        return "MoreauGrad without a penalty"
    if over == "rho" and "tolerance" in settings:
        gradient = "SmoothGrad" if settings["sigma"] > 0 else "simple gradient"
        return f"{gradient}, thresholded" if "eta" in settings else gradient
    return ""
