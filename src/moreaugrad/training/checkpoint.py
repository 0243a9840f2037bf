"""The state of a training on disk: whole, and without code in it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor, nn

from moreaugrad.files import write_atomically
from moreaugrad.training.protocol import Protocol

WEIGHTS = "last.safetensors"
STATE = "state-{step:08d}.safetensors"
TOLD = "training"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a training is. epoch, batch: the next to be done. step: how many batches are.

    tally: sums of the epoch so far, see `Trainer.step`. records: of the epochs that are done.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    tally: Sequence[Sequence[float]] = ()
    records: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """Weights with buffers, the optimiser's and the protocols' state (one for each piece)."""

    progress: Progress
    weights: Mapping[str, Tensor]
    state: Mapping[str, Tensor] = field(repr=False)

    @classmethod
    def take(
        cls,
        progress: Progress,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        protocols: Mapping[int, Mapping[str, Tensor]],
    ) -> Checkpoint:
        """protocols: the `state_dict` of each piece's."""
        state = {
            f"optimiser/{number}/{name}": value
            for number, values in optimiser.state_dict()["state"].items()
            for name, value in values.items()
            if isinstance(value, Tensor)
        }
        for piece, held in protocols.items():
            state |= {f"protocol/{piece}/{name}": value for name, value in held.items()}
        return cls(progress=progress, weights=model.state_dict(), state=state)

    def restore(
        self,
        model: nn.Module,
        optimiser: torch.optim.Optimizer,
        protocols: Mapping[int, Protocol],
    ) -> None:
        model.load_state_dict(dict(self.weights))
        # The groups hold settings alone, and these are the configuration's.
        groups = optimiser.state_dict()["param_groups"]
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in self._under("optimiser"):
            weight, _, what = name.partition("/")
            state.setdefault(int(weight), {})[what] = value
        optimiser.load_state_dict({"state": state, "param_groups": groups})
        for number, protocol in protocols.items():
            protocol.load_state_dict(dict(self._under(f"protocol/{number}")))

    def _under(self, head: str) -> list[tuple[str, Tensor]]:
        start = f"{head}/"
        return [(n[len(start) :], value) for n, value in self.state.items() if n.startswith(start)]

    def save(self, folder: Path) -> None:
        """The state comes first; the renaming of the weights, which name it, makes both valid."""
        step = self.progress.step
        told = {name: getattr(self.progress, name) for name in Progress.__dataclass_fields__}
        # Sums of an epoch may be infinite: h is, of a perturbation that its penalty forbids.
        text = json.dumps(told, ensure_ascii=False)
        write_tensors(folder / STATE.format(step=step), self.state, text)
        write_tensors(folder / WEIGHTS, self.weights, str(step))
        for file in folder.glob("state-*.safetensors"):
            if file.name != STATE.format(step=step):
                file.unlink()

    @classmethod
    def load(cls, folder: Path) -> Checkpoint | None:
        """The last one of a folder. Errors: ValueError for a damaged one."""
        file = folder / WEIGHTS
        if not file.exists():
            return None
        try:
            step = int(_told(file))
            state = folder / STATE.format(step=step)
            progress = Progress(**json.loads(_told(state)))
            return cls(progress=progress, weights=load_file(file), state=load_file(state))
        except (SafetensorError, OSError, KeyError, ValueError, TypeError) as error:
            raise ValueError(
                f"{file}: expected a checkpoint with its state beside it ({error}); name another "
                "folder, or begin again with --overwrite"
            ) from error


def write_tensors(path: Path, tensors: Mapping[str, Tensor], told: str) -> None:
    """A safetensors file, whole or not there. Errors: OSError of the file system.

    told: its one word of metadata; several would be in no fixed order.
    """
    kept = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    write_atomically(path, save(kept, {TOLD: told}))


def _told(path: Path) -> str:
    with safe_open(path, framework="pt") as file:
        found: str = file.metadata()[TOLD]
        return found
