"""Trains the CIFAR-10 ResNet-20 with softplus, a network with second derivatives everywhere.

    MOREAUGRAD_DATA=... python -m benchmarks.train_smooth

The MoreauGrad paper's own CIFAR-10 network is of this kind. Images are shifted and mirrored;
the last epoch is kept, and only it sees the test images. The state after each epoch lies in a
`.partial` file, from which an interrupted training goes on to the same result.
"""

from __future__ import annotations

import dataclasses
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image
from rich.progress import Progress, track
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.cifar_resnet import LABELS, PREPROCESS, SMOOTH_WEIGHTS, ResNet
from benchmarks.subjects import data_folder

SHIFT = 4
"""Pixels that a training image moves at most, each way."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    epochs: int = 20
    batch: int = 128
    rate: float = 0.1
    weight_decay: float = 5e-4
    seed: int = 0


def pictures(archive: Path, split: str) -> tuple[Tensor, Tensor]:
    """Bytes `[N, 3, 32, 32]` and labels `[N]`, in the order of the names."""
    images, labels = [], []
    with zipfile.ZipFile(archive) as opened:
        names = sorted(name for name in opened.namelist() if name.startswith(f"{split}/"))
        for name in track([n for n in names if n.endswith(".jpg")], f"reading {split}"):
            with Image.open(io.BytesIO(opened.read(name))) as image:
                images.append(torch.from_numpy(np.array(image.convert("RGB"))))
            labels.append(LABELS.index(name.split("/")[1]))
    return torch.stack(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)


def normalise(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (PREPROCESS.mean, PREPROCESS.std))
    x = (images.float() / 255 - mean) / std
    return x.contiguous(memory_format=torch.channels_last)


def batches(
    images: Tensor, labels: Tensor, size: int, generator: torch.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch, shuffled; every image with a shift and perhaps a reflection of its own."""
    wide = F.pad(images, (SHIFT,) * 4)
    span = torch.arange(images.shape[-1])
    for rows in torch.randperm(len(images), generator=generator).split(size):
        if len(rows) < size:
            return
        y0, x0 = torch.randint(2 * SHIFT + 1, (2, size, 1), generator=generator)
        mirrored = torch.rand(size, 1, generator=generator) < 0.5
        columns = torch.where(mirrored, span.flip(0), span) + x0
        part = wide[rows[:, None, None], :, (y0 + span)[:, :, None], columns[:, None, :]]
        yield normalise(part.permute(0, 3, 1, 2)), labels[rows]


@torch.no_grad()
def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    parts = zip(images.split(256), labels.split(256), strict=True)
    right = sum(int((model(normalise(x)).argmax(1) == y).sum()) for x, y in parts)
    return right / len(labels)


def train(settings: Settings, out: Path, archive: Path) -> None:
    images, labels = pictures(archive, "train")
    torch.manual_seed(settings.seed)
    model = ResNet(3, F.softplus).to(memory_format=torch.channels_last)
    optimiser = torch.optim.SGD(
        model.parameters(), settings.rate, 0.9, weight_decay=settings.weight_decay, nesterov=True
    )
    steps = len(images) // settings.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, settings.rate, total_steps=settings.epochs * steps, pct_start=0.2
    )
    partial, done = out.with_name(out.name + ".partial"), 0
    partial.parent.mkdir(parents=True, exist_ok=True)
    if partial.is_file():
        found = torch.load(partial, weights_only=True)
        done = found["epoch"]
        for part, name in ((model, "model"), (optimiser, "optimiser"), (schedule, "schedule")):
            part.load_state_dict(found[name])
    with Progress() as progress:
        task = progress.add_task("training", total=settings.epochs * steps, completed=done * steps)
        for epoch in range(done + 1, settings.epochs + 1):
            generator = torch.Generator().manual_seed(1000 * settings.seed + epoch)
            model.train()
            total, right = 0.0, 0
            for x, y in batches(images, labels, settings.batch, generator):
                outputs = model(x)
                loss = F.cross_entropy(outputs, y)
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                schedule.step()
                total, right = (
                    total + float(loss.detach()),
                    right + int((outputs.argmax(1) == y).sum()),
                )
                progress.advance(task)
            mean, share = total / steps, right / (steps * settings.batch)
            progress.print(f"epoch {epoch}: loss {mean:.4f}, training accuracy {share:.4f}")
            state = {
                "epoch": epoch,
                "model": model.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
            }
            torch.save(state, partial)
    reached = accuracy(model, *pictures(archive, "test"))
    metadata = {
        "settings": json.dumps(dataclasses.asdict(settings)),
        "test_accuracy": f"{reached:.4f}",
        "torch": torch.__version__,
    }
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, out, metadata=metadata)
    partial.unlink()
    print(f"test accuracy {reached:.4f}; wrote {out} ({out.stat().st_size / 1e6:.2f} MB)")


def main(
    out: Annotated[Path, typer.Option(help="the safetensors file to write")] = SMOOTH_WEIGHTS,
    epochs: int = Settings.epochs,
    batch: int = Settings.batch,
    rate: float = Settings.rate,
    weight_decay: float = Settings.weight_decay,
    seed: int = Settings.seed,
) -> None:
    """Train the CIFAR-10 ResNet-20 with softplus."""
    settings = Settings(epochs=epochs, batch=batch, rate=rate, weight_decay=weight_decay, seed=seed)
    train(settings, out, data_folder() / "cifar10-jpeg.zip")


if __name__ == "__main__":
    typer.run(main)
