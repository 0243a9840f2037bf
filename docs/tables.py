"""Tables of the documentation that are made from the code."""

from pathlib import Path

import typer

from moreaugrad.cli.app import app
from moreaugrad.explainers import METHODS
from moreaugrad.metrics import METRICS

RESULTS = Path(__file__).parents[1] / "benchmarks" / "results"


def methods_table(pages: str = "") -> str:
    """The registry as a table, each method linked to its page in the folder `pages`."""
    rows = ["| method | what it is | class | source |", "|---|---|---|---|"]
    for name, method in METHODS.items():
        found = method.load()
        settings = ", ".join(f"{key}={value!r}" for key, value in method.settings.items())
        made = f"`{found.__name__}({settings})`" if settings else f"`{found.__name__}`"
        rows.append(
            f"| [`{name}`]({pages}{found.method}.md) | {method.summary} | {made} | {method.paper} |"
        )
    return "\n".join(rows)


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


def options_table(name: str = "explain", only: str = "") -> str:
    """A command's options, by what they are about. `explain` has those of `compare` and `sweep`.

    only: what they are about, where not all are wanted.
    """
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    panels: dict[str, list[str]] = {}
    for option in command.params:
        panel = getattr(option, "rich_help_panel", None)
        if panel:
            names = ", ".join(f"`{name}`" for name in (*option.opts, *option.secondary_opts))
            told = option.help.replace("\\[", "[").replace("|", "\\|")
            panels.setdefault(panel, []).append(f"| {names} | {told} |")
    return "\n\n".join(
        "\n".join([f"| {panel} | |", "|---|---|", *rows])
        for panel, rows in panels.items()
        if only in ("", panel)
    )


def measurements() -> str:
    """Links to the tables of `make bench` that are there."""
    found = [
        f"- [{path.read_text(encoding='utf-8').partition(chr(10))[0].lstrip('# ')}]"
        f"(measurements/{path.name})"
        for path in sorted(RESULTS.glob("*.md"))
    ]
    return "\n".join(found) or "none."
