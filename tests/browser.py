"""A headless Chromium to look at pages with."""

import base64
import json
import os
import select
import subprocess
import time
from contextlib import contextmanager

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
KEYS = {
    "ArrowRight": (39, ""), "ArrowLeft": (37, ""), "ArrowUp": (38, ""), "ArrowDown": (40, ""),
    "Home": (36, ""), "End": (35, ""), "Tab": (9, ""), "Escape": (27, ""), "Enter": (13, "\r"),
    " ": (32, " "),
}  # fmt: skip
"""The codes of keys, and what they type."""


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
        loader = self.call("Page.navigate", url=path if isinstance(path, str) else path.as_uri())[
            "loaderId"
        ]
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
            code, text = KEYS[key]
            typed = {"text": text} if text and kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent",
                type=kind,
                key=key,
                code=key,
                windowsVirtualKeyCode=code,
                **typed,
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
