"""The command `completion`: a script for a shell, made of all commands and their options."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

from moreaugrad.cli.app import make_app
from moreaugrad.cli.commands import CommonOptions
from moreaugrad.cli.interruption import DONE
from moreaugrad.runs.plans.option import Plan, option


@dataclass(frozen=True, kw_only=True)
class CompletionPlan(Plan):
    """What `completion` has of its own."""

    shell: str = option("bash", "bash, zsh or fish.", "SHELL", choices=("bash", "zsh", "fish"))


def print_script(plan: CompletionPlan, output: CommonOptions) -> int:
    shell: Any = plan.shell
    sys.stdout.write(make_app(None).generate_completion(shell=shell))
    return DONE
