"""Tables of the documentation that are made from the code, and from what was measured.

`python docs/tables.py` writes those that the README and the pages hold themselves.
"""

import importlib
import json
import re
from pathlib import Path

from moreaugrad.attacks import ATTACKS
from moreaugrad.cli.app import ORDER
from moreaugrad.cli.commands import COMMANDS
from moreaugrad.explainers import METHODS
from moreaugrad.metrics import METRICS
from moreaugrad.runs.plans.option import Option
from moreaugrad.settings import settings_of
from moreaugrad.solvers import Status

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
HELD = re.compile(
    r"^(?P<begin><!-- (?P<kind>attacks|methods|settings|statuses): (?P<of>\S+)"
    r"(?: beyond (?P<beyond>\S+))?.*? -->)\n.*?^(?P<end><!-- (?P=kind): end -->)$",
    re.DOTALL | re.MULTILINE,
)
"""A table that a page holds itself, for those who read it where it lies."""


def methods_table(pages: str = "") -> str:
    """The registry as a table, each method linked to its page in the folder `pages`."""
    rows = ["| method | what it is | class | source |", "|---|---|---|---|"]
    for name, method in METHODS.items():
        found = method.load()
        settings = ", ".join(f"{key}={value!r}" for key, value in method.settings.items())
        made = f"`{found.__name__}({settings})`" if settings else f"`{found.__name__}`"
        link = f"[`{name}`]({pages}{found.method}.md)"
        rows.append(f"| {link} | {method.summary} | {made} | {method.source} |")
    return "\n".join(rows)


def attacks_table(_: str) -> str:
    """The registry of attacks as a table."""
    rows = ["| attack | what it does | class | source |", "|---|---|---|---|"]
    for name, row in ATTACKS.items():
        made = row.load().__name__
        rows.append(f"| `{name}` | {row.summary} | `{made}` | {row.source} |")
    return "\n".join(rows)


def statuses_table(_: str) -> str:
    """Every status: whether its map may be used, what happened, and what to do."""
    rows = ["| status | use the map? | what happened | what to do |", "|---|---|---|---|"]
    for status in Status:
        use = "yes" if status.ok else "no" if status.failed else "with its error"
        rows.append(f"| `{status.value}` | {use} | {status.message} | {status.remedy} |")
    return "\n".join(rows)


TABLES = {"attacks": attacks_table, "methods": methods_table, "statuses": statuses_table}
"""Of those that pages hold, by what stands in front of them; of others it is that of settings."""


def settings_table(of: str, beyond: str = "") -> str:
    """The settings of a class, but for those that another one has already."""
    known = [(one.name, one.owner) for one in settings_of(_named(beyond))] if beyond else []
    rows = ["| setting | default | meaning |", "|---|---|---|"]
    for one in settings_of(_named(of)):
        if one.default and (one.name, one.owner) not in known:
            meaning = " ".join(one.meaning.split()).replace("|", "\\|")
            rows.append(f"| `{one.name}` | `{one.default}` | {meaning} |")
    return "\n".join(rows)


def _named(path: str) -> type:
    module, _, name = path.rpartition(".")
    found: type = getattr(importlib.import_module(f"moreaugrad.{module}"), name)
    return found


def with_tables(text: str) -> str:
    """A page whose tables are those of the code."""

    def made(found: re.Match[str]) -> str:
        table = TABLES.get(found["kind"], settings_table)
        given = [found["of"]] if found["beyond"] is None else [found["of"], found["beyond"]]
        return f"{found['begin']}\n{table(*given)}\n{found['end']}"

    return HELD.sub(made, text)


def metrics_table() -> str:
    """The registry of metrics as a table."""
    rows = [
        "| metric | kind | what it is | better | settings | source |",
        "|---|---|---|---|---|---|",
    ]
    for name, metric in METRICS.items():
        settings = ", ".join(f"`{key}={value!r}`" for key, value in metric.defaults().items())
        rows.append(
            f"| `{name}` | {metric.kind} | {metric.summary} | {metric.better} | {settings} | "
            f"{metric.source} |"
        )
    return "\n".join(rows)


def options_of(name: str) -> list[Option]:
    """The options of a command, those of the folder of results among them."""
    return COMMANDS[name].options()


def options_table(name: str = "explain", only: str = "") -> str:
    """The options of a command, a table for each group of them.

    only: the name of a group, where not all are wanted.
    """
    groups: dict[str, list[str]] = {}
    for option in options_of(name):
        names = (*option.names, *([option.negative] if option.negative else []))
        shown = ", ".join(f"`{name}`" for name in names)
        help = option.help.replace("|", "\\|")
        row = f"| {shown} | {help} | {option.default.replace('|', chr(92) + '|')} |"
        groups.setdefault(option.group, []).append(row)
    return "\n\n".join(
        "\n".join([f"| {group} | | default |", "|---|---|---|", *groups[group]])
        for group in ORDER
        if group in groups and only in ("", group)
    )


def measurements() -> str:
    """Links to the tables of `make bench` that are there."""
    found = [
        f"- [{path.read_text(encoding='utf-8').partition(chr(10))[0].lstrip('# ')}]"
        f"(measurements/{path.name})"
        for path in sorted(RESULTS.glob("*.md"))
    ]
    return "\n".join(found) or "none."


def result_table(name: str, number: str = "1") -> str:
    """A table of a part's result, without its caption."""
    result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    table = result["tables"][int(number) - 1]
    lines = [table["header"], ["---"] * len(table["header"]), *table["rows"]]
    return "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)


def _cell(value: object) -> str:
    if value is None:
        return "–"
    return f"{value:.3g}" if isinstance(value, float) else str(value).replace("|", "\\|")


if __name__ == "__main__":
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        path.write_text(with_tables(path.read_text("utf-8")), "utf-8")
