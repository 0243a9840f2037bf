"""The command line of all commands, made of their plans."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import cyclopts
from cyclopts import App, Group, Parameter

from moreaugrad import __version__
from moreaugrad.cli.commands import COMMANDS, GROUPS, Command, CommonOptions
from moreaugrad.runs.plans.option import Option, options

ORDER = (
    "Data", "Model", "Explanation", "Certificate", "Evaluation", "Randomisation", "Visualisation",
    "Augmentation", "Protocol", "Optimisation", "Study", "Report", "Computation", "Output",
)  # fmt: skip
EPILOGUE = (
    "Exit codes: 0 done, 1 some inputs or methods left out, 2 bad input; 130, 143 or 129 "
    "interrupted by Ctrl-C, SIGTERM or SIGHUP."
)
POSITIONAL, KEYWORD = inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.KEYWORD_ONLY


def make_app(chosen: str = "") -> App:
    """The application. chosen: the command whose options are declared; "" declares those of all,
    for completion; the others then have their first line alone, so that the answer comes at once.
    """
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
    for name, command in COMMANDS.items():
        head, _, tail = name.rpartition(" ")
        whole = chosen in ("", name)
        (groups[head] if head else app).command(_function(name, command, whole=whole), name=tail)
    groups["data"].command(_cells, name="cells")
    app.command(_methods, name="methods")
    app.command(_demo, name="demo")
    return app


def _function(name: str, command: Command, *, whole: bool) -> Callable[..., int]:
    """What is called, with a signature and a text from which cyclopts makes options and help."""
    declared: list[Option] = []
    if whole:
        declared = [option for _, option in options(command.plan_class(), command.hidden)]
        declared += [option for _, option in options(CommonOptions, command.without)]
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
    kind: Any = list[str] if option.repeated else bool if option.is_flag else str
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


def _methods(
    name: Annotated[str | None, Parameter(name="METHOD")] = None,
    /,
    *,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """List the methods with their settings, or explain the settings of one.

    Parameters
    ----------
    name
        One of them, in detail.
    json
        Print them for scripts, as JSON.
    """
    from moreaugrad.cli.perform import list_methods

    list_methods(name, as_json=json)
    return 0


def _demo(
    *,
    out: Annotated[str, Parameter(name=("--out", "-o"))] = "moreaugrad-demo",
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Explain synthetic cells by the built-in networks, offline, and score the maps.

    The ground truth of each cell is known. Takes about a minute.

    Parameters
    ----------
    out
        Folder for the results.
    json
        Print a summary for scripts, as JSON.
    """
    from moreaugrad.cli.perform import demo

    return demo(out, json=json)


def _cells(
    *,
    out: Annotated[str, Parameter(name=("--out", "-o"))],
    images: int = 4096,
    validation_images: int = 0,
    test_images: int = 0,
    size: int = 64,
    seed: int = 0,
    workers: int = 0,
    quiet: Annotated[bool, Parameter(name=("--quiet", "-q"), negative=())] = False,
    json: Annotated[bool, Parameter(negative=())] = False,
) -> int:
    """Write synthetic cells of ten classes as a folder of images, with their ground truth maps.

    moreaugrad data cells --images 4096 --test-images 1024 --size 64 --out cells

    Interrupted and started again, it resumes.

    Parameters
    ----------
    out
        Folder for the images.
    images
        Images to train on.
    validation_images
        Images of a part `val`.
    test_images
        Images of a part `test`.
    size
        Side of the images, in pixels.
    seed
        Random seed of the cells.
    workers
        Processes that draw; 0 is this one.
    quiet
        Print no progress and no summary.
    json
        Print a summary for scripts, as JSON.
    """
    from moreaugrad.cli.perform import write_cells

    counts = {"train": images, "val": validation_images, "test": test_images}
    return write_cells(out, counts, size=size, seed=seed, workers=workers, quiet=quiet, json=json)


def command_of(arguments: list[str]) -> str:
    """The command that the words of a command line begin with; "-" for none."""
    for count in (1, 2):
        if " ".join(arguments[:count]) in COMMANDS:
            return " ".join(arguments[:count])
    return "-"


UsageError = cyclopts.CycloptsError
