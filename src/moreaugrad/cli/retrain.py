"""`moreaugrad retrain`: what it tells of maps that networks are trained again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from moreaugrad.cli.codes import DONE, INTERRUPTED, PARTLY
from moreaugrad.cli.options import TRUST

if TYPE_CHECKING:
    from moreaugrad.runs.pace import Watch
    from moreaugrad.runs.study import Study
    from moreaugrad.runs.team import Team
    from moreaugrad.runs.train import Means, TrainPlan

retrain = typer.Typer()

Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]
Config = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="TOML file of a training, as each `train` folder holds.",
                 show_default=False),
]  # fmt: skip
Trust = Annotated[bool, typer.Option("--trust", help=TRUST)]
Epochs = Annotated[
    int | None,
    typer.Option(help="In the place of the configuration's.", show_default=False),
]
Device = Annotated[str, typer.Option(help="cpu, cuda, mps or auto.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that make batches; 0: this one.")]
Memory = Annotated[float, typer.Option(help="Bytes of decoded pictures that are kept.")]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a study of another configuration.")
]
Json = Annotated[bool, typer.Option("--json", help="The results for scripts.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no table.")]
Methods = Annotated[str, typer.Option(help="a,b; see `moreaugrad methods`.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="[METHOD.]NAME=VALUE", show_default=False,
                 help="Any setting that `moreaugrad methods` lists; can be repeated."),
]  # fmt: skip
Images = Annotated[int, typer.Option(min=1, help="Test pictures at most whose maps are compared.")]


@retrain.callback(invoke_without_command=True)
def group(context: typer.Context) -> int:
    """Train networks again: DiffROAR, stability, permuted labels.

    Interrupted and started again, a study goes on where it was. More processes share the
    trainings: torchrun --nproc-per-node 2 -m moreaugrad retrain ...
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
    return DONE


@retrain.command()
def diffroar(
    trained: Annotated[
        Path,
        typer.Argument(metavar="TRAINED", help="Folder of `train`; its best network is explained."),
    ],
    out: Out,
    levels: Annotated[str, typer.Option(help="Shares of a picture that are kept.")] = (
        ".1,.2,.3,.4,.5,.6,.7,.8,.9"
    ),
    seeds: Annotated[str, typer.Option(help="Of the trainings.")] = "0,1,2",
    methods: Methods = "simple-gradient",
    set: Set = None,
    unit: Annotated[str, typer.Option(help="Rank every element, or every pixel.")] = "element",
    target: Annotated[str, typer.Option(help="Explain the label, or the prediction.")] = "label",
    fill: Annotated[
        float | None,
        typer.Option(help="Value of what is removed, 0 to 1 \\[default: the mean colour].",
                     show_default=False),
    ] = None,
    control: Annotated[
        bool, typer.Option("--control/--no-control", help="A random order besides.")
    ] = True,
    config: Config = None,
    trust: Trust = False,
    epochs: Epochs = None,
    device: Device = "auto",
    workers: Workers = 0,
    memory: Memory = 4e9,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:  # fmt: skip
    """Train on what a map ranks first, and on what it ranks last.

    The new networks are trained as the explained one was, on the plain loss, or by --config.

    moreaugrad retrain diffroar run --levels .2,.5,.8 --seeds 0,1 --out run-diffroar
    """
    from moreaugrad.cli.values import numbers, whole_numbers
    from moreaugrad.runs.retrain import DiffRoarPlan, DiffRoarStudy

    plan = DiffRoarPlan(
        explained=trained,
        training=_training(config, trained, epochs, device, trust=trust),
        levels=tuple(numbers("levels", levels)),
        seeds=tuple(whole_numbers("seeds", seeds)),
        methods=_methods(methods, set),
        unit=unit, target=target, fill=fill, control=control,
    )  # fmt: skip
    return _perform(
        lambda *given: DiffRoarStudy(plan, *given),
        out, workers=workers, memory=memory, overwrite=overwrite, json=json, quiet=quiet,
    )  # fmt: skip


@retrain.command()
def stability(
    config: Config,
    out: Out,
    seeds: Annotated[str, typer.Option(help="Of the trainings; every pair is compared.")] = "0,1",
    exchanged: Annotated[
        str, typer.Option(help="Shares of the training pictures exchanged for test pictures.")
    ] = "0,.1",
    images: Images = 500,
    methods: Methods = "simple-gradient",
    set: Set = None,
    metrics: Annotated[str, typer.Option(help="Of pairs of maps.")] = "ssim,dice,spearman",
    trust: Trust = False,
    epochs: Epochs = None,
    device: Device = "auto",
    workers: Workers = 0,
    memory: Memory = 4e9,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Compare maps of networks trained with other seeds and on partly other pictures.

    moreaugrad retrain stability --config run/config.toml --seeds 0,1,2 --out run-stability
    """
    from moreaugrad.cli.values import numbers, whole_numbers
    from moreaugrad.runs.retrain import StabilityPlan, StabilityStudy

    plan = StabilityPlan(
        training=_training(config, None, epochs, device, trust=trust),
        seeds=tuple(whole_numbers("seeds", seeds)),
        exchanged=tuple(numbers("exchanged", exchanged)),
        images=images,
        methods=_methods(methods, set),
        metrics=words(metrics),
    )
    return _perform(
        lambda *given: StabilityStudy(plan, *given),
        out, workers=workers, memory=memory, overwrite=overwrite, json=json, quiet=quiet,
    )  # fmt: skip


@retrain.command()
def labels(
    config: Config,
    out: Out,
    seeds: Annotated[str, typer.Option(help="Of the trainings and permutations.")] = "0,1",
    images: Images = 500,
    methods: Methods = "simple-gradient",
    set: Set = None,
    metrics: Annotated[
        str, typer.Option(help="Of pairs of maps.")
    ] = "ssim,spearman,spearman-signed",
    trust: Trust = False,
    epochs: Epochs = None,
    device: Device = "auto",
    workers: Workers = 0,
    memory: Memory = 4e9,
    overwrite: Overwrite = False,
    json: Json = False,
    quiet: Quiet = False,
) -> int:
    """Compare maps with those of networks that have learnt permuted labels.

    moreaugrad retrain labels --config run/config.toml --epochs 60 --out run-labels
    """
    from moreaugrad.cli.values import whole_numbers
    from moreaugrad.runs.retrain import LabelsPlan, LabelsStudy

    plan = LabelsPlan(
        training=_training(config, None, epochs, device, trust=trust),
        seeds=tuple(whole_numbers("seeds", seeds)),
        images=images,
        methods=_methods(methods, set),
        metrics=words(metrics),
    )
    return _perform(
        lambda *given: LabelsStudy(plan, *given),
        out, workers=workers, memory=memory, overwrite=overwrite, json=json, quiet=quiet,
    )  # fmt: skip


def _methods(names: str, given: list[str] | None) -> dict[str, dict[str, Any]]:
    """Their settings by name."""
    from moreaugrad.cli.jobs import apply, method_names, method_part
    from moreaugrad.cli.options import MethodOptions

    found: dict[str, dict[str, Any]] = {name: {} for name in method_names(names)}
    parts = [method_part(name, name, settings) for name, settings in found.items()]
    apply(MethodOptions(set=given), parts)
    return found


def _training(
    config: Path | None, trained: Path | None, epochs: int | None, device: str, *, trust: bool
) -> TrainPlan:
    """Of a configuration as it is; that of a trained network without its protocol."""
    from moreaugrad.runs.train import ProtocolPlan, read_plan

    if config is not None:
        plan = read_plan(config, trust=trust)
    elif trained is not None:
        plan = read_plan(trained / "config.toml", trust=trust)
        plan = replace(plan, protocol=ProtocolPlan(), shards=None)
    else:
        raise ValueError("--config: expected the TOML file of a training, got none")
    plan = replace(plan, device=None if device == "auto" else device)
    return plan if epochs is None else replace(plan, epochs=epochs)


def _perform(
    make: Callable[[Means, Watch, Team], Study],
    out: Path, *, workers: int, memory: float, overwrite: bool, json: bool, quiet: bool,
) -> int:  # fmt: skip
    from moreaugrad.runs.train import Means

    def made(watch: Watch, team: Team) -> Study:
        return make(Means(workers=workers, memory=memory / team.size), watch, team)

    return perform_study(made, out, overwrite=overwrite, json=json, quiet=quiet)


def perform_study(
    make: Callable[[Watch, Team], Study], out: Path, *, overwrite: bool, json: bool, quiet: bool
) -> int:
    """Does a study, shared by the processes that there are; the exit code."""
    from moreaugrad.cli import screen
    from moreaugrad.runs.study import run_study
    from moreaugrad.runs.team import team

    with team() as members:
        leads = members.rank == 0
        with screen.watching(quiet=quiet or not leads) as watch:
            study = make(watch, members)
            outcome = run_study(study, out, overwrite=overwrite, team=members, watch=watch)
    told: dict[str, Any] = {
        "folder": str(out), "interrupted": outcome.interrupted,
        "finished": outcome.finished, "units": outcome.units,
        "seconds": round(outcome.seconds, 3), "results": outcome.results,
    }  # fmt: skip
    if leads and json:
        screen.print_json(told)
    elif leads and not quiet and outcome.table:
        screen.results().print(outcome.table, markup=False, soft_wrap=True)
    if outcome.interrupted:
        screen.note(
            f"interrupted: {outcome.finished} of {outcome.units} parts are finished; the same "
            "command goes on from here"
        )
        return INTERRUPTED
    return PARTLY if outcome.results.get("unreadable") else DONE


def words(text: str) -> tuple[str, ...]:
    """Those between commas."""
    return tuple(word.strip() for word in text.split(",") if word.strip())
