"""Every method of the registry on photos that may be shown: they come with scikit-image."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from PIL import Image

from benchmarks import gallery, subjects
from benchmarks.context import Context
from benchmarks.figures import QUICK, broken
from benchmarks.results import Result
from benchmarks.subjects import MissingData, Subject
from moreaugrad import METHODS

PHOTOS = {
    "chelsea": "CC0 by the photographer, Stéfan van der Walt",
    "coffee": "CC0 by the photographer, Rachel Michetti; courtesy of Pikolo Espresso Bar",
    "rocket": "released into the public domain by SpaceX",
}
"""Names in `skimage.data`, and what its documentation says of their licences."""
BUDGET = 128
"""Evaluations of a map at most."""
LIMITS: dict[str, dict[str, Any]] = {
    "smooth-caso": {"samples": 8},
    "relex": {"steps": 32, "draws": 2},
    "published-moreaugrad": {"steps": 32, "draws": 4, "average": 8},
}
"""Of methods whose own defaults take more."""
LIMITED = (
    f"at most {BUDGET} evaluations for each map: MoreauGrad at the quality preview, Smooth CASO, "
    "RelEx and the published algorithm with fewer noise samples and steps than by default; all "
    "other settings are the defaults"
)
BAND = 4


def run(context: Context) -> Result:
    subject = with_photos(subjects.load("squeezenet"))
    names = subject.names[: 2 if context.quick else None]
    rows = gallery.cases(subject, [(name, 0) for name in names])
    columns = [
        gallery.column(context, subject, rows, method, broken(method), **settings(context, method))
        for method in METHODS
    ]
    return gallery.result(
        replace(context, photos=True),
        subject,
        rows,
        columns,
        name="gallery-photos",
        title="Every method on three photos (squeezenet)",
        settings={"evaluations": BUDGET, "photos": PHOTOS, "limits": LIMITS},
        notes=[LIMITED, *(f"{name}: {licence}" for name, licence in PHOTOS.items())],
        band=BAND,
    )


def with_photos(subject: Subject) -> Subject:
    """The same network, with the photos as its images."""
    try:
        from skimage import data
    except ImportError as missing:
        raise MissingData("the photos come with scikit-image, which is not installed") from missing
    return replace(
        subject, names=tuple(PHOTOS), read=lambda name: Image.fromarray(getattr(data, name)())
    )


def settings(context: Context, method: str) -> dict[str, Any]:
    known = METHODS[method].defaults()
    quality = {"tolerance": "preview"} if "rho" in known else {}
    chosen = {"max_evaluations": BUDGET} | quality | LIMITS.get(method, {})
    if context.quick:
        chosen |= QUICK
    return {name: value for name, value in chosen.items() if name in known}
