"""The command line of all commands, made of their plans."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Annotated, Any

import cyclopts
from cyclopts import App, Group, Parameter

from moreaugrad import __version__
from moreaugrad.cli.commands import EVERY, GROUPS, Command
from moreaugrad.runs.plans.option import Option

ORDER = (
    "Data", "Model", "Explanation", "Certificate", "Evaluation", "Randomisation", "Visualisation",
    "Augmentation", "Protocol", "Optimisation", "Study", "Report", "Computation", "Output",
)  # fmt: skip
EPILOGUE = (
    "Exit codes: 0 done, 1 some inputs or methods left out, 2 bad input; 130, 143 or 129 "
    "interrupted by Ctrl-C, SIGTERM or SIGHUP."
)
POSITIONAL, KEYWORD = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.KEYWORD_ONLY


def make_app(chosen: str) -> App:
    """The application. chosen: the command whose options are declared; the others have their first
    line alone, so that the answer comes at once."""
    app = App(
        name="moreaugrad", version=f"moreaugrad {__version__}", help_format="plaintext",
        help="Sparse, stable and checked gradient explanations of image classifiers.",
        help_epilogue=EPILOGUE, help_flags=("--help", "-h"), version_flags=("--version",),
    )  # fmt: skip
    groups = {
        name: App(name=name, help=text, help_format="plaintext") for name, text in GROUPS.items()
    }
    for group in groups.values():
        app.command(group)
    for name, command in EVERY.items():
        head, _, tail = name.rpartition(" ")
        declared = command.options() if chosen == name else []
        (groups[head] if head else app).command(_function(name, command, declared), name=tail)
    return app


def _function(name: str, command: Command, declared: Sequence[Option]) -> Callable[..., int]:
    """What is called, with a signature and a text from which cyclopts makes options and help."""
    parameters, named, words = [], {}, ""
    for number, option in enumerate(declared):
        key = f"option{number}"
        if option.name.startswith("-"):
            named[key] = option.name
            parameters.append(
                inspect.Parameter(key, KEYWORD, default=None, annotation=_annotation(option))
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


def _annotation(option: Option) -> Any:
    kind: Any = list[str] if option.repeated else str
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
