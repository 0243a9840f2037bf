"""A page with everything on it."""

import math

import numpy as np
import pytest

from moreaugrad.pictures import as_photo, draw, heatmap
from moreaugrad.reports import Page, Section, Sweep, Tile, write_page

NASTY = """<script>alert(1)</script>"'&</style>{{ 7 * 7 }}"""


def map_and_photo(seed, size=48):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(3, size, size))
    return values * (np.abs(values) > 1.5), rng.random((size, size, 3))


def make_tile(title, seed, **given):
    values, image = map_and_photo(seed)
    given = {"status": "converged", "zeros": float(np.mean(values == 0)), **given}
    return Tile(title=title, views=draw(values, image), **given)


def make_page(nasty=NASTY):
    values = (0.0, 0.1, 1.0)
    sweep = Sweep(
        parameter="rho",
        values=values,
        limit="simple gradient",
        tiles=[make_tile("moreaugrad", seed, evaluations=2**seed) for seed in range(len(values))],
    )
    troubled = make_tile(
        nasty, 7, ok=False, status=nasty, warning=nasty, extra={nasty: nasty}, scores={"AUROC": 0.5}
    )
    empty = Tile(title="empty", views=draw(np.zeros((3, 48, 48))), status="converged", zeros=1.0)
    lost = Tile(title="lost", views={}, ok=False, status="non-finite", warning="lower rho")
    sparse = make_tile(
        "sparse-moreaugrad",
        3,
        error=0.083,
        residual=0.00123,
        evaluations=4096,
        seconds=12.34,
        scores={"AUROC": 0.875, "average precision": math.nan},
    )
    first = Section(
        title=f"{nasty}.jpg",
        tiles=[sparse, troubled, empty, lost],
        photo=as_photo(map_and_photo(3)[1]),
        prediction=[(nasty, 0.973), ("cat", 0.0002)],
        target=nasty,
        truth=heatmap(np.eye(48)),
        sweeps=[sweep],
        note=nasty,
    )
    second = Section(
        title="plain.jpg",
        tiles=[make_tile("sparse-moreaugrad", 4, evaluations=1024, scores={"AUROC": 0.625})],
    )
    return Page(
        title=f"Explanations {nasty}",
        lead=nasty,
        sections=[first, second],
        command=f"moreaugrad explain '{nasty}'",
        facts={"model": nasty, "torch": "2.13.0"},
        notes=[nasty],
        settings=nasty,
    )


@pytest.fixture(scope="session")
def page():
    return make_page()


@pytest.fixture(scope="session")
def page_file(page, tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "index.html"
    write_page(path, page)
    return path
