"""Commands in processes of their own, which start fast: a server that has imported everything once
forks them."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(
    [
        "torch.distributed",
        "moreaugrad.cli.entry",
        "moreaugrad.runs.maps.run",
        "moreaugrad.runs.certify",
        "moreaugrad.runs.studies",
        "moreaugrad.runs.retrain.pairs",
    ]
)


def _run(
    arguments: Sequence[str], errors: str, environment: Mapping[str, str], killed_at: str
) -> None:
    for number, file in ((1, os.devnull), (2, errors)):
        os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), number)
    os.environ.update(environment)
    real = Path.replace

    def replace(self: Path, target: str | Path) -> Path:
        name = Path(target).as_posix()
        if killed_at and name.endswith(killed_at):
            os.kill(os.getpid(), signal.SIGKILL)
        if name.endswith(".sha256"):
            with Path(f"{errors}.units").open("a", encoding="utf-8") as file:
                file.write(f"{name}\n")
        return real(self, target)

    Path.replace = replace  # type: ignore[method-assign]
    from moreaugrad.cli.entry import run

    sys.exit(run(list(arguments)))


def start(
    arguments: Sequence[str],
    errors: Path,
    *,
    environment: Mapping[str, str] = {},
    killed_at: str = "",
) -> multiprocessing.process.BaseProcess:
    """A command that runs. killed_at: the end of the path of a file; the command is killed between
    its writing and its renaming. The units that it writes are listed in `ERRORS.units`."""
    found = SERVER.Process(target=_run, args=(arguments, str(errors), environment, killed_at))
    found.start()
    return found


def ended(process: multiprocessing.process.BaseProcess, errors: Path, code: int) -> None:
    """Waits for the end of a command, which must have this exit code."""
    process.join(timeout=240)
    assert process.exitcode == code, (process.exitcode, errors.read_text(encoding="utf-8"))


def run_killed(arguments: Sequence[str], errors: Path, killed_at: str) -> None:
    ended(start(arguments, errors, killed_at=killed_at), errors, -signal.SIGKILL)


def run_shared(arguments: Sequence[str], errors: Path, count: int = 2) -> None:
    """By several processes, as torchrun starts them."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    own = [{"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(count)]
    for process in [start(arguments, errors, environment=shared | one) for one in own]:
        ended(process, errors, 0)


def tree(folder: Path) -> dict[str, bytes]:
    """The files of a folder, by name."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
