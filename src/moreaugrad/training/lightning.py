"""Sparse gradients in a Lightning training, as a callback.

It is imported by its own name, `from moreaugrad.training.lightning import SparseGradients`, because
it needs `lightning` or `pytorch_lightning`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from functools import wraps
from importlib.util import find_spec
from typing import Any, cast

from torch import Tensor, nn

from moreaugrad.penalties import Penalty
from moreaugrad.settings import expect
from moreaugrad.training.catalogue import perturbing
from moreaugrad.training.harmonisation import GuidedPenalty
from moreaugrad.training.inner import PerSampleLoss, cross_entropy
from moreaugrad.training.places import Inputs, Model
from moreaugrad.training.protocol import PerturbingProtocol

PACKAGES = ("lightning.pytorch", "pytorch_lightning")
LABELS = "labels"
STEP = "training_step"


def _callbacks() -> tuple[type, ...]:
    """Of both names of the package, as far as they are installed: each has trainers of its own."""
    installed = [name for name in PACKAGES if find_spec(name.partition(".")[0])]
    if not installed:
        raise ModuleNotFoundError(
            "moreaugrad.training.lightning needs lightning or pytorch_lightning, neither of which "
            "is installed: pip install 'moreaugrad[lightning]'"
        )
    return tuple(importlib.import_module(name).Callback for name in installed)


class SparseGradients(*_callbacks()):  # type: ignore[misc]
    """Gives the module's `training_step` each batch perturbed.

    >>> callback = SparseGradients(mg.L1(0.02))
    >>> trainer = Trainer(callbacks=[callback], max_epochs=1)

    Everything else in the step is the module's own: the loss, its reduction, what is logged, and
    automatic or manual optimisation. With a `layer` in the protocol the batch stays the same, and
    the layer's output is perturbed while the step runs.

    penalty, protocol: a penalty and a protocol's name, or the protocol itself. batch: from a batch
    to (x, y), or (x, y, further arguments of `Protocol.rounds`); x is a tensor in the batch, or a
    mapping of some. Default: the first two entries of a sequence; of a mapping, "labels" is y and
    the rest is x. model: what maps x to the outputs, a submodule's name or a function; default: the
    module itself. loss: of (outputs, y), `[B]`, what the perturbation raises: the step's own loss
    for each sample. watch: called at the end of each epoch with the model and the epoch, such as
    `mg.Watch`; its numbers are logged.

    Errors: ValueError for a protocol that cannot be used in this way (`Free` and `Penalised`), and
    in the first step for a batch of another form.
    """

    def __init__(
        self,
        penalty: Penalty | GuidedPenalty | None = None,
        protocol: str | PerturbingProtocol = "fast",
        *,
        batch: Callable[[Any], tuple[Any, ...]] | None = None,
        model: str | Model | None = None,
        loss: PerSampleLoss = cross_entropy,
        watch: Callable[[nn.Module, int], Mapping[str, float]] | None = None,
    ) -> None:
        self.protocol = perturbing(penalty, protocol)
        self.batch, self.model = batch or parts, model
        self.loss, self.watch = loss, watch
        self._own: tuple[Any, Any] | None = None

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        step = getattr(pl_module, STEP)

        @wraps(step)
        def perturbed(batch: Any, *args: Any, **kwargs: Any) -> Any:
            with self._perturbed(pl_module, batch) as found:
                return step(found, *args, **kwargs)

        # Lightning reads the arguments of the step here, and looks one wrapper deep.
        perturbed.__wrapped__ = inspect.unwrap(step)
        self._own = pl_module, vars(pl_module).get(STEP)
        setattr(pl_module, STEP, perturbed)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self._own is not None:
            module, step = self._own
            delattr(module, STEP)
            if step is not None:
                setattr(module, STEP, step)
            self._own = None

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self.on_train_end(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self.watch is not None:
            found = self.watch(self._model(pl_module), trainer.current_epoch + 1)
            pl_module.log_dict(dict(found))

    def state_dict(self) -> dict[str, Any]:
        return dict(self.protocol.state_dict())

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.protocol.load_state_dict(state_dict)

    def _model(self, module: Any) -> Any:
        if isinstance(self.model, str):
            return module.get_submodule(self.model)
        found = module if self.model is None else self.model
        return found if isinstance(found, nn.Module) else _Within(module, found)

    @contextmanager
    def _perturbed(self, module: Any, batch: Any) -> Any:
        found = self.batch(batch)
        expect(len(found) in (2, 3), "batch", "(x, y) or (x, y, further arguments)", len(found))
        x, y, further = (*found, {})[:3]
        with self.protocol.perturbed(
            self._model(module), x, y, loss=self.loss, **further
        ) as inputs:
            yield batch if inputs is x else _exchanged(batch, x, inputs)


class _Within(nn.Module):
    """A function of a module's parts, whose mode it then has."""

    def __init__(self, module: nn.Module, function: Model) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)


def parts(batch: Any) -> tuple[Inputs, Tensor]:
    """(x, y) of a batch. Errors: ValueError for one of another form."""
    if isinstance(batch, (tuple, list)) and len(batch) >= 2:
        return batch[0], batch[1]
    if isinstance(batch, Mapping) and LABELS in batch:
        return {name: value for name, value in batch.items() if name != LABELS}, batch[LABELS]
    found = f"a mapping with {list(batch)}" if isinstance(batch, Mapping) else type(batch).__name__
    raise ValueError(
        f"batch: expected (x, y, ...) or a mapping with {LABELS!r}, got {found}: give batch=, a "
        "function from a batch to (x, y)"
    )


def _exchanged(batch: Any, x: Inputs, inputs: Inputs) -> Any:
    """The batch with the tensors of `inputs` instead of those of x."""
    from lightning_utilities.core.apply_func import apply_to_collection

    pairs = [(x, inputs)]
    if isinstance(x, Mapping) and isinstance(inputs, Mapping):
        pairs = [(x[name], inputs[name]) for name in x if x[name] is not inputs[name]]
    found = []

    def exchange(leaf: Tensor) -> Tensor:
        for old, new in pairs:
            if leaf is old:
                found.append(leaf)
                return cast(Tensor, new)
        return leaf

    exchanged = apply_to_collection(batch, Tensor, exchange)
    if not found:
        raise ValueError(
            "batch: expected x to be a tensor of the batch itself, got one made of it: make "
            "it where the batch is made, or in on_after_batch_transfer"
        )
    return exchanged
