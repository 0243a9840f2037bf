"""Network passes: how many samples each takes, how a model is called, and its errors."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.backends import cudnn, mha
from torch.nn.attention import SDPBackend, sdpa_kernel

from moreaugrad.score.checks import ForwardError, ModelError, TargetError, detached
from moreaugrad.score.inputs import Layout
from moreaugrad.score.outputs import tensor_output
from moreaugrad.settings import expect

T = TypeVar("T")

# Entries of the input in one pass: 16 photos of 3 x 224 x 224, 128 images of 3 x 32 x 32. Larger
# chunks are slower per sample on a CPU (page faults and cache misses of big activations); an
# accelerator needs more.
CPU_ENTRIES, CPU_MOST = 2_500_000, 128
DEVICE_ENTRIES, DEVICE_MOST = 40_000_000, 2048
# Bytes of activations in one pass on a CPU, once they are known: small networks get enough rows to
# reach the first, and no network exceeds the second.
CPU_FULL, CPU_LARGEST = 100_000_000, 2_000_000_000
DEVICE_LARGEST = 0.25
"""The fraction of a GPU's memory that the activations in one pass take at most."""


def device_memory(device: torch.device) -> int | None:
    """Bytes of a GPU's memory, whatever else uses it, so that the same run has the same passes when
    it is repeated; None for another device."""
    return torch.cuda.mem_get_info(device)[1] if device.type == "cuda" else None


@dataclass(eq=False)
class Chunks:
    """The chunk size shared by all parts of one computation; it is halved when memory runs out.

    most: the largest size that `fit` may choose; None keeps the size, which the user has set.
    full, largest: bytes of activations that a pass should have, if `most` allows it, and may have.
    row_bytes: those that a row keeps for its gradient; 0 where they are not known.
    """

    size: int
    most: int | None = None
    full: int = 0
    largest: int | None = None
    row_bytes: int = 0

    @classmethod
    def of(cls, batch_size: int | None, like: Tensor) -> Chunks:
        """`batch_size`, or a size from the device and the entries of a row of `like` `[B, n]`."""
        if batch_size is not None:
            expect(batch_size >= 1, "batch_size", "at least 1", batch_size)
            return cls(batch_size)
        on_cpu = like.device.type == "cpu"
        entries, usual = (CPU_ENTRIES, CPU_MOST) if on_cpu else (DEVICE_ENTRIES, DEVICE_MOST)
        fitting = max(1, entries // max(1, like.shape[1]))
        if on_cpu:
            return cls(min(usual, fitting), fitting, CPU_FULL, CPU_LARGEST)
        memory = device_memory(like.device)
        largest = None if memory is None else int(DEVICE_LARGEST * memory)
        return cls(min(usual, fitting), fitting, largest=largest)

    def fit(self, row_bytes: int) -> None:
        """Adapts the size to the bytes of activations that a row keeps for its gradient."""
        self.row_bytes = row_bytes
        if self.most is not None and self.largest is not None and row_bytes > 0:
            full, largest = self.full // row_bytes, self.largest // row_bytes
            self.size = max(1, min(max(self.size, full), largest, self.most))

    def guarded(self, work: Callable[[], T]) -> T | None:
        """The result of `work`; None when memory ran out and the size was halved.

        Errors: MemoryError when a single pass does not fit.
        """
        try:
            return work()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            if self.size == 1:
                raise MemoryError(
                    "not enough memory for the pass of one sample; use a smaller input or model, "
                    "reduced precision, or another device"
                ) from error
        self.size //= 2
        return None

    def over(self, rows: Tensor, work: Callable[[Tensor], Tensor], width: int = 1) -> Tensor:
        """The joined results of `work` on chunks of rows, `width` places of a pass each."""
        found: list[Tensor] = []
        at = 0
        while at < len(rows):
            part = rows[at : at + max(1, self.size // width)]
            done = self.guarded(partial(work, part))
            if done is None:  # the chunk size was halved, so start over here
                continue
            found.append(done)
            at += len(part)
        return torch.cat(found)


@contextmanager
def activations(model: object) -> Iterator[list[int]]:
    """Lists the bytes of each tensor that passes keep for their gradient, without weights."""
    tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
    known = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        with suppress(RuntimeError):  # tensors without a storage, such as sparse ones
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in known:
                known.add(storage.data_ptr())
                sizes.append(storage.nbytes())
        return tensor.detach()  # an operation that keeps its own output would never be freed

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        yield sizes


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, so that a smaller pass may help."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return "out of memory" in text or "can't allocate memory" in text


def forward(model: Callable[..., Any], *args: object, layout: Layout | None = None) -> Tensor:
    """The model's output as one tensor. Errors as for `call`; TypeError for another output."""
    return tensor_output(call(model, *args, layout=layout))


def call(model: Callable[..., Any], *args: object, layout: Layout | None = None) -> Any:
    """What the model returns. Errors: ModelError for whatever it raises.

    layout: the inputs that the error describes; None describes the tensors among `args`.
    """
    tensors = [arg for arg in args if isinstance(arg, Tensor) and arg.ndim > 0]
    with ExitStack() as held:
        held.enter_context(one_function())
        if _on_gpu(tensors) and _recurrent(model):
            held.enter_context(without_cudnn())
        held.enter_context(explained(layout or Layout.of(tensors)))
        held.enter_context(inside_autocast())
        return model(*args)


_AUTOCAST: ContextVar[tuple[str, torch.dtype] | None] = ContextVar("_AUTOCAST", default=None)
"""Kind of device and type of the caller's autocast, while `outside_autocast` is open."""


@contextmanager
def outside_autocast(device: torch.device) -> Iterator[None]:
    """While open, autocast, if it is on for this device, is around what computes outputs only.

    Backward passes run in the precision of the forward passes; sums and products of a solver keep
    their own precision.
    """
    if not torch.is_autocast_enabled(device.type):
        yield
        return
    before = _AUTOCAST.set((device.type, torch.get_autocast_dtype(device.type)))
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        _AUTOCAST.reset(before)


def inside_autocast() -> AbstractContextManager[Any]:
    """The caller's autocast again, for what computes outputs."""
    known = _AUTOCAST.get()
    return nullcontext() if known is None else torch.autocast(known[0], dtype=known[1])


def autocast_types(device: torch.device) -> list[torch.dtype]:
    """The type of the autocast that outputs are computed under; empty without one."""
    if (known := _AUTOCAST.get()) is not None:
        return [known[1]]
    kind = device.type
    return [torch.get_autocast_dtype(kind)] if torch.is_autocast_enabled(kind) else []


def _on_gpu(tensors: list[Tensor]) -> bool:
    return any(tensor.is_cuda for tensor in tensors)


_RECURRENT = WeakKeyDictionary[nn.Module, bool]()
"""Of the models that were asked about: the search takes as long as a small pass."""


def _recurrent(model: object) -> bool:
    if not isinstance(model, nn.Module):
        return False
    if model not in _RECURRENT:
        _RECURRENT[model] = any(isinstance(part, nn.RNNBase) for part in model.modules())
    return _RECURRENT[model]


class _Switches:
    """Global settings of torch: the first thread that enters sets them, and the last one that
    leaves restores the user's."""

    def __init__(self, switch: Callable[[ExitStack], None]) -> None:
        """switch: sets them, and adds what restores them to the stack."""
        self._switch, self._lock, self._open, self._depth = switch, threading.Lock(), ExitStack(), 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            if self._depth == 0:
                self._switch(self._open)
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                if self._depth == 0:
                    self._open.close()


def _one_function(restored: ExitStack) -> None:
    restored.callback(mha.set_fastpath_enabled, mha.get_fastpath_enabled())
    mha.set_fastpath_enabled(False)
    # Nothing is compiled without dynamo. Older torch has no such switch.
    if "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance"):
        restored.enter_context(torch.compiler.set_stance("force_eager"))


def _without_cudnn(restored: ExitStack) -> None:
    restored.callback(setattr, cudnn, "enabled", cudnn.enabled)
    cudnn.enabled = False


def _plain_attention(restored: ExitStack) -> None:
    restored.enter_context(sdpa_kernel(SDPBackend.MATH))


one_function = _Switches(_one_function)
"""While open, passes with and without gradients compute the same function.

torch's fast path of `nn.TransformerEncoder` runs only without gradients, and skips padded
positions; compiled models ignore hooks. Both are switched off.
"""
without_cudnn = _Switches(_without_cudnn)
"""While open, nothing is computed by cuDNN, whose recurrent layers have no backward pass in
evaluation mode."""
plain_attention = _Switches(_plain_attention)
"""While open, attention is computed in its plain form, which has second derivatives."""


@contextmanager
def explained(layout: Layout) -> Iterator[None]:
    """Turns any error of a model into a ModelError that says which inputs the model got."""
    try:
        yield
    except (ModelError, TargetError):
        raise
    except Exception as error:
        if out_of_memory(error):
            raise
        text = str(error)
        if "inplace operation" in text or "in-place operation" in text:
            raise ModelError(
                "the model changes its input in place, which hides the gradient, or an activation "
                f"that its gradient needs: {text}"
            ) from error
        if "not have been used in the graph" in text:
            raise detached() from error
        if "requires_grad flags of leaf" in text:
            raise ModelError(
                "the model sets requires_grad on what it computes from its input, which torch "
                "refuses where the input's gradient is recorded. Freeze that part (Hugging Face's "
                "speech models: model.freeze_feature_encoder()), or call the model in evaluation "
                f"mode ({_line(text)})"
            ) from error
        shapes = ", ".join(str(("B", *shape)).replace("'", "") for shape in layout.shapes)
        types = ", ".join(str(dtype) for dtype in layout.dtypes)
        exported = (
            ": it was exported for other shapes; export it with a dynamic batch size "
            "(torch.export.Dim), or give batch_size="
        )
        hint = exported if text.startswith("Guard failed") else ""
        raise ForwardError(
            f"the model could not process inputs of shape {shapes} and dtype {types} "
            f"({type(error).__name__}: {_line(text)}){hint}"
        ) from error


def _line(text: str) -> str:
    """The line that says what is wrong: TorchScript's errors print a trace before it."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    if not lines:
        return "no message"
    return lines[-1] if "TorchScript" in lines[0] else lines[0]
