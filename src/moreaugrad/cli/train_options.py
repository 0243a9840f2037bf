"""The options of `train`. None: not given, so the configuration decides."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from moreaugrad.cli.options import (
    TRUST,
    Augment,
    Compute,
    Data,
    Model,
    Optimise,
    Output,
    Protocol,
)
from moreaugrad.penalties import PENALTIES
from moreaugrad.training import PROTOCOLS


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """Of `train`. What is not given is the configuration's."""

    data: Annotated[
        str | None,
        Data(help="cells, a folder of pictures, or a zip of one; ImageNet, Imagenette, CIFAR-10 "
             "and CUB-200-2011 as they are distributed."),
    ] = None  # fmt: skip
    layout: Annotated[str | None, Data(help="Of the folder \\[default: auto].")] = None
    split: Annotated[str | None, Data(help="What to train on \\[default: train].")] = None
    validation: Annotated[
        float | None,
        Data(help="Share of it that is held out, to choose the best epoch by \\[default: 0.1]."),
    ] = None
    test: Annotated[
        str | None, Data(help="Part that the finished network is judged on: test or val.")
    ] = None
    unreadable: Annotated[
        float | None,
        Data(help="Share of unreadable pictures from which on it fails \\[default: 0.01]."),
    ] = None
    count: Annotated[int | None, Data(help="Cells to train on \\[default: 4096].")] = None
    test_count: Annotated[int | None, Data(help="Cells to test on \\[default: 1024].")] = None
    data_seed: Annotated[int | None, Data(help="Of the cells.")] = None

    size: Annotated[
        int | None, Augment(help="Side of the pictures \\[default: the network's].")
    ] = None
    resize: Annotated[
        str | None, Augment(help="Shorter side before the crop, or HEIGHT,WIDTH.")
    ] = None
    crop: Annotated[str | None, Augment(help="random, centre or resized.")] = None
    pad: Annotated[int | None, Augment(help="Pixels of black on each side.")] = None
    flip: Annotated[bool | None, Augment("--flip/--no-flip", help="Left and right.")] = None
    rotate: Annotated[float | None, Augment(help="Largest angle, in degrees.")] = None
    blur: Annotated[float | None, Augment(help="Largest deviation, in pixels.")] = None
    brightness: Annotated[float | None, Augment(help="Factors from 1 - b to 1 + b.")] = None
    contrast: Annotated[float | None, Augment(help="The same.")] = None
    saturation: Annotated[float | None, Augment(help="The same.")] = None

    model: Annotated[
        str | None,
        Model(help="torchvision:NAME, timm:NAME, hf:NAME, trained:FOLDER, python.module:factory or "
              "builtin, a small network of synthetic cells. Required but for cells."),
    ] = None  # fmt: skip
    weights: Annotated[
        Path | None, Model(help="To begin with: safetensors, or a checkpoint of weights.")
    ] = None
    labels: Annotated[
        Path | None, Model(help="Names of the outputs of these weights, one a line, or JSON.")
    ] = None
    trust: Annotated[bool, Model("--trust", help=TRUST)] = False
    from_scratch: Annotated[
        bool | None, Model("--from-scratch", help="Begin with fresh weights.")
    ] = None

    protocol: Annotated[
        str | None,
        Protocol(help=f"{', '.join(PROTOCOLS)}, or package.module:Class \\[default: plain]."),
    ] = None  # fmt: skip
    penalty: Annotated[
        str | None,
        Protocol(help=f"{', '.join(PENALTIES)}, or package.module:Class."),
    ] = None  # fmt: skip
    epsilon: Annotated[
        str | None,
        Protocol(help="Weight of the penalty on the gradient; two of the elastic net: l1,l2. In "
                 "the network's input units, or pixels with --set units=pixel."),
    ] = None  # fmt: skip
    group: Annotated[int | None, Protocol(help="Side of the group penalty's blocks.")] = None
    channels: Annotated[
        str | None, Protocol(help="Of a block: separate or joint \\[default: separate].")
    ] = None
    set: Annotated[
        list[str] | None,
        Protocol("--set", metavar="NAME=VALUE", help="A setting of the protocol, such as steps=7; "
                 "can be repeated."),
    ] = None  # fmt: skip

    epochs: Annotated[int | None, Optimise(help="Over the data \\[default: 10].")] = None
    batch: Annotated[int | None, Optimise(help="Pictures of an update \\[default: 32].")] = None
    loss: Annotated[
        str | None, Optimise(help="cross-entropy or hinge \\[default: cross-entropy].")
    ] = None
    optimiser: Annotated[str | None, Optimise(help="adam, adamw or sgd.")] = None
    lr: Annotated[float | None, Optimise(help="Largest learning rate \\[default: 0.001].")] = None
    schedule: Annotated[
        str | None, Optimise(help="constant, cosine or one-cycle \\[default: constant].")
    ] = None
    weight_decay: Annotated[float | None, Optimise(help="\\[default: 0].")] = None
    betas: Annotated[str | None, Optimise(help="Of Adam \\[default: 0.9,0.999].")] = None
    momentum: Annotated[float | None, Optimise(help="Of SGD \\[default: 0.9].")] = None
    seed: Annotated[
        int | None, Optimise(help="Of weights, order, augmentation and split \\[default: 0].")
    ] = None
    judged: Annotated[
        int | None,
        Optimise(help="Pictures at most that Gini and robustness are measured on "
                 "\\[default: 500]."),
    ] = None  # fmt: skip

    shards: Annotated[
        int | None,
        Compute(help="Pieces that each batch is cut into \\[default: the processes]. The weights "
                "depend on it, not on how many processes share them."),
    ] = None  # fmt: skip
    amp: Annotated[str | None, Compute(help="bfloat16: mixed precision.")] = None
    device: Annotated[str | None, Compute(help="cpu, cuda, cuda:1, mps or auto.")] = None
    threads: Annotated[int | None, Compute(help="Of the processor, in each process.")] = None
    workers: Annotated[
        int | None,
        Compute(help="Processes that read pictures and make batches \\[default: 0, this one]."),
    ] = None
    memory: Annotated[
        float | None, Compute(help="Bytes of decoded pictures that are kept \\[default: 4e9].")
    ] = None
    checkpoint_every: Annotated[
        int | None, Compute(help="Batches between checkpoints \\[default: one an epoch].")
    ] = None

    out: Annotated[Path | None, Output("--out", "-o", help="Folder for the results.")] = None
    overwrite: Annotated[
        bool, Output("--overwrite", help="Replace a training of another configuration.")
    ] = False
    config: Annotated[
        Path | None,
        Output("--config", "-c", help="TOML file of a training, as each folder holds one; what is "
               "given here goes before it."),
    ] = None  # fmt: skip
    dry_run: Annotated[
        bool, Output("--dry-run", help="Tell passes and time from a short timing; write nothing.")
    ] = False
    json: Annotated[bool, Output("--json", help="A summary for scripts on standard output.")] = (
        False
    )
    quiet: Annotated[bool, Output("--quiet", "-q", help="No progress, no summary.")] = False
