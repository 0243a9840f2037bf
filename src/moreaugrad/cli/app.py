"""The command line of all commands, made of their plans."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from textwrap import wrap
from typing import TYPE_CHECKING, Annotated, Any, Literal

import cyclopts
from cyclopts import App, Group, Parameter

from moreaugrad import __version__
from moreaugrad.cli.commands import EVERY, GROUPS, Command
from moreaugrad.runs.plans.option import Option

if TYPE_CHECKING:
    from cyclopts.help import HelpPanel
    from rich.console import Console, ConsoleOptions

ORDER = (
    "Data", "Text", "Series and volumes", "Model", "Explanation", "Recommendation", "Certificate",
    "Evaluation", "Randomisation", "Visualisation", "Augmentation", "Protocol", "Optimisation",
    "Study", "Report", "Page", "Computation", "Output",
)  # fmt: skip
EPILOGUE = (
    "Exit codes: 0 done, 1 some inputs or methods left out, 2 bad input; 130, 143 or 129 "
    "interrupted by Ctrl-C, SIGTERM or SIGHUP."
)
HELP = ("--help", "-h")
INDENT = 28
"""Of what an option means."""
POSITIONAL, KEYWORD = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.KEYWORD_ONLY


def make_app(chosen: str | None) -> App:
    """The application. chosen: the command whose options are declared; the others have their first
    line alone, so that the answer comes at once. None: those of all, with the words that
    completion offers, which are no others' limit: this one parses nothing."""
    app = App(
        name="moreaugrad", version=f"moreaugrad {__version__}", help_format="plaintext",
        help="Sparse, stable and checked gradient explanations of classifiers.",
        help_epilogue=EPILOGUE, help_flags=HELP, version_flags=("--version",),
        help_formatter=_panel, usage="Usage: moreaugrad COMMAND",
    )  # fmt: skip
    groups = {
        name: App(
            name=name, help=text, help_format="plaintext",
            usage=f"Usage: moreaugrad {name} COMMAND",
        )
        for name, text in GROUPS.items()
    }  # fmt: skip
    for group in groups.values():
        app.command(group)
    for name, command in EVERY.items():
        head, _, tail = name.rpartition(" ")
        declared = command.options() if chosen in (name, None) else []
        words = "".join(f" [{o.name}...]" for o in declared if not o.name.startswith("-"))
        (groups[head] if head else app).command(
            _function(name, command, declared, offering=chosen is None), name=tail,
            usage=f"Usage: moreaugrad {name} [OPTIONS]{words}",
        )  # fmt: skip
    return app


def print_help(app: App, arguments: Sequence[str]) -> bool:
    """Whether the command line is a command and --help alone, which is then answered: parsing the
    options first would take as long again."""
    *words, last = arguments or [""]
    asked = last in HELP and " ".join(words) in EVERY
    if asked:
        app.help_print(words)
    return asked


def _panel(console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
    """A group of options in two columns. Without boxes: drawing them takes longer than all else."""
    rows = []
    for entry in panel.entries:
        head = f"  {' '.join(entry.display_labels_with_metavar)}"
        about = entry.description
        text = " ".join(map(str, (about.primary_renderable, *about.texts)))
        lines = wrap(text, max(20, options.max_width - INDENT), break_on_hyphens=False) or [""]
        if len(head) < INDENT - 1:
            head += " " * (INDENT - len(head)) + lines.pop(0)
        rows += [head, *(" " * INDENT + line for line in lines)]
    if rows:
        console.print(panel.title, style="bold", markup=False, highlight=False)
        console.print("\n".join(rows), end="\n\n", markup=False, highlight=False, soft_wrap=True)


def _function(
    name: str, command: Command, declared: Sequence[Option], *, offering: bool
) -> Callable[..., int]:  # fmt: skip
    """What is called, with a signature and a text from which cyclopts makes options and help."""
    parameters, named, words = [], {}, ""
    for number, option in enumerate(declared):
        key = f"option{number}"
        if option.name.startswith("-"):
            named[key] = option.name
            parameters.append(
                inspect.Parameter(
                    key, KEYWORD, default=None, annotation=_annotation(option, offering=offering)
                )
            )
        else:
            words = option.name
            given = Annotated[str, Parameter(name=option.name, help=option.help)]
            parameters.insert(0, inspect.Parameter("words", POSITIONAL, annotation=given))

    def called(*values: str, **given: Any) -> int:
        from moreaugrad.cli.perform import perform

        found = {named[key]: value for key, value in given.items() if value is not None}
        if values:
            found[words] = list(values)
        return perform(name, command, found)

    called.__doc__ = f"{command.help}\n\n{command.more}"
    called.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    return called


def _annotation(option: Option, *, offering: bool) -> Any:
    offered = option.choices or option.offers
    word: Any = Literal[tuple(offered)] if offering and offered else str
    kind: Any = list[word] if option.repeated else word
    help = option.help + (f" [default: {option.default}]" if option.default else "")
    declare = partial(
        Parameter, name=option.names, help=help.replace("[default: required]", "[required]"),
        group=Group(option.group, sort_key=ORDER.index(option.group)), show_default=False,
        allow_repeating=True,
    )  # fmt: skip
    if option.is_flag:
        return Annotated[bool | None, declare(negative=option.negative or ())]
    how: dict[str, Any] = {
        "metavar": option.metavar or "TEXT",
        "allow_leading_hyphen": True,
        "negative": (),
    }
    return Annotated[kind | None, declare(**how)]


def command_of(arguments: list[str]) -> str:
    """The command that the words of a command line begin with; "-" for none."""
    found = (" ".join(arguments[:count]) for count in (1, 2))
    return next((words for words in found if words in EVERY), "-")


UsageError = cyclopts.CycloptsError
