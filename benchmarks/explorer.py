"""`moreaugrad serve` as its page asks it: the first map, the end of one given up, many clients."""

from __future__ import annotations

import http.client
import json
import signal
import statistics
import struct
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote, urlsplit

from safetensors.torch import save_model

from benchmarks import machine
from benchmarks.command import started
from benchmarks.context import Context
from benchmarks.results import Result, Table
from benchmarks.subjects import data_folder
from moreaugrad.models import load_model

NETWORKS = {
    "SqueezeNet": ("torchvision:squeezenet1_0", "squeezenet1_0-imagenet.safetensors"),
    "ResNet-50": ("torchvision:resnet50", None),
}
"""With weights of the data folder, or with random ones: the time is the same."""
ROUNDS, CLIENTS, SECONDS = 7, 8, 120.0
EVERY = 10.0
"""Seconds between two looks at the memory."""
FRAMES = 3
"""Of each map, before a client asks for another one."""


@dataclass(frozen=True)
class Address:
    """Of a page. user: who asks."""

    url: str
    user: str = "0"

    def asked(self, **request: Any) -> Iterator[Mapping[str, Any]]:
        """The headers of the messages that answer, as they come; closed early, it is given up.
        Errors: RuntimeError for a refusal."""
        parts = urlsplit(self.url)
        assert parts.hostname is not None
        connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
        try:
            text = quote(json.dumps(request))
            connection.request("POST", f"{parts.path}api?user={self.user}&asked={text}")
            answer = connection.getresponse()
            while sizes := answer.read(8):
                head, body = struct.unpack("<II", sizes)
                header = json.loads(answer.read(head))
                answer.read(body)
                if answer.status != 200 or "refused" in header:
                    raise RuntimeError(str(header))
                yield header
        finally:
            connection.close()


def run(context: Context) -> Result:
    rounds, seconds = (2, 4.0) if context.quick else (ROUNDS, SECONDS)
    rows = []
    for name, (model, weights) in NETWORKS.items():
        with _serving(model, weights, context.threads) as (_, url):
            rows.append([name, *_of_one(Address(url), rounds)])
        print("  " + " ".join(map(str, rows[-1])), flush=True)
    model, weights = NETWORKS["SqueezeNet"]
    with _serving(model, weights, context.threads) as (process, url):
        load = _load(process, url, seconds)
    return Result(
        title="The explorer",
        settings={"rounds": rounds, "clients": CLIENTS, "seconds": seconds, "frames": FRAMES},
        figures={"seconds": rows, "load": load},
        tables=[
            Table(
                caption="Seconds of one client (medians of rounds, the longest in brackets).",
                header=[
                    "network", "image opened", "first map", "evaluations of it",
                    "next request after one given up, over alone",
                ],
                rows=rows,
            ),
            Table(
                caption=f"SqueezeNet, {CLIENTS} clients at once, each with a new map as soon as "
                f"it has {FRAMES} frames of one.",
                header=["seconds", "resident memory, MiB"],
                rows=[[at, memory] for at, memory in load["memory"]],
            ),
        ],
        notes=[
            (
                f"{load['frames']} frames, {load['errors']} errors; a client waits "
                f"{load['median']:.1f} s for a first map in the median, at most "
                f"{load['longest']:.1f} s"
            ),
            "one photo of 224 x 224 pixels, Sparse MoreauGrad; ResNet-50 with random weights",
            "server and clients share the cores",
        ],
    )  # fmt: skip


@contextmanager
def _serving(
    model: str, weights: str | None, threads: int
) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """The process and the address of a page with one photo."""
    folder = data_folder()
    photo = min((folder / "imagenet-sample").glob("*.JPEG"))
    with TemporaryDirectory() as name:
        file = folder / "models" / weights if weights else Path(name) / "random.safetensors"
        if weights is None:
            save_model(load_model(model, pretrained=False).module, str(file))
        process = started(
            "serve", str(photo), "--model", model, "--weights", str(file), "--threads",
            str(threads), "--device", "cpu", "-q", stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            yield process, process.stdout.readline().decode().strip()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait()


def _of_one(page: Address, rounds: int) -> list[object]:
    """The columns of a network."""
    opening, first, evaluations, after = [], [], [], []
    for seed in range(rounds):
        begun = time.perf_counter()
        list(page.asked(do="open", image="0"))
        opening.append(time.perf_counter() - begun)
        seconds, frame, answer = _first_map(page, seed)
        first.append(seconds)
        evaluations.append(frame["evaluations"])
        next(answer)  # a pass of the next frame has begun
        answer.close()
        again, _, answer = _first_map(page, rounds + seed)
        answer.close()
        after.append(again / seconds)
    return [*map(_spread, (opening, first)), max(evaluations), _spread(after)]


def _first_map(
    page: Address, seed: int
) -> tuple[float, Mapping[str, Any], Iterator[Mapping[str, Any]]]:
    """Seconds until the first frame of a map, the frame, and what follows."""
    begun = time.perf_counter()
    answer = page.asked(do="explain", image="0", seed=seed)
    next(answer)  # how a user computes it
    frame = next(answer)
    return time.perf_counter() - begun, frame, answer


def _spread(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):.2f} ({max(seconds):.2f})"


def _load(process: subprocess.Popen[bytes], url: str, seconds: float) -> dict[str, Any]:
    """Memory, frames, errors and waiting of several clients."""
    begun, seeds, over = time.monotonic(), count(), threading.Event()
    waited: list[float] = []
    frames: list[int] = []
    errors: list[str] = []

    def client(user: str) -> None:
        page = Address(url, user)
        while not over.is_set():
            try:
                spent, _, answer = _first_map(page, next(seeds))
                waited.append(spent)
                frames.append(1)
                for _ in range(FRAMES - 1):
                    with suppress(StopIteration):
                        next(answer)
                        frames.append(1)
                answer.close()
            except Exception as error:  # whatever it is, it is counted
                errors.append(f"{type(error).__name__}: {error}")

    list(Address(url).asked(do="open", image="0"))
    threads = [threading.Thread(target=client, args=(str(user),)) for user in range(CLIENTS)]
    for thread in threads:
        thread.start()
    memory = []
    while (at := time.monotonic() - begun) < seconds:
        memory.append((round(at), round(machine.resident_mib(process.pid))))
        time.sleep(min(EVERY, seconds / 4))
    over.set()
    for thread in threads:
        thread.join()
    return {
        "memory": memory, "frames": len(frames), "errors": len(errors), "messages": errors[:3],
        "median": statistics.median(waited), "longest": max(waited),
    }  # fmt: skip
