"""What all tests share: the data folder, fixed threads, and a watch on the global generators."""

import os
import random
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import matplotlib
import numpy as np
import pytest
import torch

from browser import BROWSERS, Browser

matplotlib.use("Agg")

if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers and their subprocesses share the cores; several threads each only fight for them.
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def data_folder() -> Path:
    """The folder of real models and pictures, named by MOREAUGRAD_DATA; skips without it."""
    name = os.environ.get("MOREAUGRAD_DATA")
    if not name:
        pytest.skip("MOREAUGRAD_DATA is not set: it names the folder of real models and pictures")
    folder = Path(name)
    if not folder.is_dir():
        pytest.fail(f"MOREAUGRAD_DATA names {folder}, which is not a folder")
    return folder


@pytest.fixture(scope="session")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A headless browser; skips where there is none."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no Chromium: looked for {', '.join(BROWSERS)} on the path")
    browser = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Start each test from the same global random state, whatever ran before in its worker."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 - the legacy generator is what other libraries draw from
    torch.manual_seed(0)


@contextmanager
def _untouched_generators() -> Iterator[None]:
    python, torch_cpu = random.getstate(), torch.get_rng_state()
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    yield
    assert random.getstate() == python, "Python's global random state changed"
    now_name, now_keys, *now_rest = np.random.get_state()  # noqa: NPY002
    assert (now_name, now_rest) == (name, rest), "numpy's global random state changed"
    assert np.array_equal(now_keys, keys), "numpy's global random state changed"
    assert torch.equal(torch.get_rng_state(), torch_cpu), "torch's global random state changed"


@pytest.fixture
def untouched_generators() -> Callable[[], AbstractContextManager[None]]:
    """`with untouched_generators():` fails where the block moved a global random state."""
    return _untouched_generators
