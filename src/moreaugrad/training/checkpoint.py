"""The state of a training on disk, written as a whole, in files that contain no code."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from moreaugrad.files.tensors import read_tensors, write_tensors
from moreaugrad.training.protocol import Protocol

WEIGHTS = "last.safetensors"
STATE, STATES = "state-{step:08d}.safetensors", "state-*.safetensors"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far a training is. epoch, batch: the next ones. step: the number of finished batches.

    tally: sums over the epoch so far, see `Trainer.step`. records: those of the finished epochs.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    tally: Sequence[Sequence[float]] = ()
    records: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True, kw_only=True, eq=False)
class Checkpoint:
    """Weights with buffers, and the state of the optimiser and of the protocol of each piece."""

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
        """Of a training in progress. protocols: the `state_dict` of each piece's protocol."""
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
        """Puts the state into the model, the optimiser and the protocol of each piece."""
        model.load_state_dict(dict(self.weights))
        # The groups hold settings only, which come from the configuration.
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
        """Writes the state, then the weights, which name it: their renaming makes both valid."""
        step = self.progress.step
        # Sums of an epoch may be infinite: h is where the penalty forbids the perturbation.
        text = json.dumps(vars(self.progress), ensure_ascii=False)
        write_tensors(folder / STATE.format(step=step), self.state, text)
        write_tensors(folder / WEIGHTS, self.weights, str(step))
        self.tidy(folder)

    def tidy(self, folder: Path) -> None:
        """Removes the states of other checkpoints."""
        for file in folder.glob(STATES):
            if file.name != STATE.format(step=self.progress.step):
                file.unlink()

    @classmethod
    def load(cls, folder: Path) -> Checkpoint | None:
        """The last one of a folder. Errors: ValueError for a damaged one."""
        file = folder / WEIGHTS
        if not file.exists():
            return None
        try:
            step, weights = read_tensors(file, "a checkpoint")
            text, state = read_tensors(folder / STATE.format(step=int(step)), "a checkpoint")
            progress = Progress(**json.loads(text))
            return cls(progress=progress, weights=weights, state=state)
        except (OSError, ValueError, TypeError) as error:
            raise ValueError(f"{file}: expected a checkpoint with its state ({error})") from error
