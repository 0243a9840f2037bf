"""A page with everything on it, and a headless Chromium to look at pages with."""

import base64
import json
import math
import os
import select
import shutil
import subprocess
import time
from contextlib import contextmanager

import numpy as np
import pytest

from moreaugrad.pictures import as_photo, draw, heatmap
from moreaugrad.reports import Page, Section, Sweep, Tile, write_page

NASTY = """<script>alert(1)</script>"'&</style>{{ 7 * 7 }}"""
KEYS = {
    "ArrowRight": 39, "ArrowLeft": 37, "Home": 36, "End": 35, "Tab": 9, "Enter": 13, "Escape": 27,
}  # fmt: skip
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
]


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


class Browser:
    """The DevTools protocol over a pipe: `call` a method, collect events meanwhile."""

    def __init__(self, program, folder):
        reads, child_writes = os.pipe()
        child_reads, writes = os.pipe()
        # Chromium reads from descriptor 3 and writes to 4.
        shell = f'exec "$0" "$@" 3<&{child_reads} 4>&{child_writes}'
        command = ["bash", "-c", shell, program, *FLAGS, f"--user-data-dir={folder}"]
        self.process = subprocess.Popen(
            command,
            pass_fds=(child_reads, child_writes),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(child_reads)
        os.close(child_writes)
        self.reads, self.writes = reads, writes
        self.buffer, self.events, self.last = b"", [], 0
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        found = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self.session = found["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.setLifecycleEventsEnabled", enabled=True)
        # Elements get focus events whether or not the window has the focus already.
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)

    session = None

    def call(self, method, **parameters):
        self.last += 1
        message = {"id": self.last, "method": method, "params": parameters}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.writes, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(method)
            if answer.get("id") == self.last:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def _next(self, waiting_for):
        deadline = time.monotonic() + 60
        while b"\0" not in self.buffer:
            ready, _, _ = select.select([self.reads], [], [], max(0, deadline - time.monotonic()))
            data = os.read(self.reads, 1 << 20) if ready else b""
            assert data, f"Chromium did not answer while waiting for {waiting_for}"
            self.buffer += data
        line, _, self.buffer = self.buffer.partition(b"\0")
        answer = json.loads(line)
        if "id" not in answer:
            self.events.append(answer)
        return answer

    def open(self, path, *, width=1280, height=900, dark=False, script=True, medium=""):
        self.events.clear()
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media=medium, features=scheme)
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        loader = self.call("Page.navigate", url=path.as_uri())["loaderId"]
        # An earlier document's event may come late: it must be this one's.
        while not any(
            event["method"] == "Page.lifecycleEvent"
            and (event["params"]["name"], event["params"]["loaderId"]) == ("load", loader)
            for event in self.events
        ):
            self._next("the page to load")
        if script:
            self.settle()

    def settle(self):
        """Waits until a frame is shown: resize observers run before it, after its callbacks."""
        frame = "new Promise(shown => requestAnimationFrame(() => requestAnimationFrame(shown)))"
        self.ask(f"{frame}.then(() => null)")

    @contextmanager
    def before_pages(self, script):
        """A script that runs in each page before its own."""
        method = "Page.{}ScriptToEvaluateOnNewDocument"
        added = self.call(method.format("add"), source=script)
        try:
            yield
        finally:
            self.call(method.format("remove"), **added)

    def ask(self, expression):
        """The value of an expression, of a promise when it is kept."""
        found = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def press(self, key):
        for kind in ("keyDown", "keyUp"):
            code = KEYS[key]
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
            )

    def screenshot(self):
        data = self.call("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        return base64.b64decode(data)

    def close(self):
        # Without its pipe the browser ends by itself.
        os.close(self.writes)
        os.close(self.reads)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(20)


@pytest.fixture(scope="session")
def chromium(tmp_path_factory):
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip(f"no Chromium: looked for {', '.join(BROWSERS)} on the path")
    browser = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()
