"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]
PACKAGES = ("torch", "captum", "numpy", "torchvision")
ALLOCATOR = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "GLIBC_TUNABLES", "LD_PRELOAD")

KEPT_PAGES = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(2**40)}
"""Environment with which glibc keeps freed memory instead of returning it to the kernel."""


def run_module(name: str, *arguments: object, environment: dict[str, str] | None = None) -> str:
    """What a module prints, run by itself. Errors: RuntimeError with what it complained of."""
    done = subprocess.run(
        [sys.executable, "-m", name, *map(str, arguments)],
        env=os.environ | (environment or {}),
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{name} {arguments} failed: {done.stderr.strip()[-2000:]}")
    return done.stdout.strip()


def peak_mib() -> float:
    """The most memory that this process has held.

    The kernel's other figure, of `getrusage`, starts at what the parent held.
    """
    return _status_mib("VmHWM")


def resident_mib(process: int | str = "self") -> float:
    """The memory that a process holds."""
    return _status_mib("VmRSS", process)


def _status_mib(name: str, process: int | str = "self") -> float:
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"expected a kernel that reports {name} in /proc/self/status")


def describe(device: torch.device) -> dict[str, Any]:
    """Device, processor, threads, versions, commit."""
    on_gpu = {"accelerator": torch.cuda.get_device_name(device)} if device.type == "cuda" else {}
    return on_gpu | {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 1),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "bfloat16": bfloat16_support(),
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        **{name: version(name) for name in PACKAGES},
        "commit": _commit(),
        "allocator": {name: os.environ[name] for name in ALLOCATOR if name in os.environ},
    }


def bfloat16_support() -> str:
    """The processor's own instructions for bfloat16 products."""
    flags = set(_cpuinfo("flags").split())
    return ", ".join(sorted(flags & {"avx512_bf16", "amx_bf16", "amx_tile"})) or "none"


def _processor() -> str:
    family = f"family {_cpuinfo('cpu family')} model {_cpuinfo('model')}"
    return f"{_cpuinfo('model name') or platform.processor()} ({family})"


def _cpuinfo(name: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = (line.partition(":") for line in lines)
    return next((value.strip() for key, _, value in pairs if key.strip() == name), "")


def _commit() -> str:
    """The revision, with a + where the library or the benchmarks differ from it."""
    try:
        revision = _git("rev-parse", "--short=12", "HEAD")
        changed = _git("status", "--porcelain", "--untracked-files=no", "src", "benchmarks")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return revision + ("+" if changed else "")


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()
