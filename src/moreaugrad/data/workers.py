"""Work in other processes, answered in order; torch's loader carries it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

Q = TypeVar("Q")
A = TypeVar("A")


class Workers(Generic[Q, A]):
    """`answer` of every request, in the requests' order, a few ahead of the reader.

    count: processes, which stay for the next requests; 0 is this one. pin: tensors into
    page-locked memory. Errors: a ValueError of `answer`, as it is, at the place of its answer.
    """

    def __init__(self, answer: Callable[[Q], A], count: int = 0, *, pin: bool = False) -> None:
        if count < 0:
            raise ValueError(f"workers: expected a number of processes >= 0, got {count}")
        self._requests: _Requests[Q] = _Requests()
        self._loader: DataLoader[A | ValueError] = DataLoader(
            _Answers(answer),
            batch_size=None,
            sampler=self._requests,
            num_workers=count,
            collate_fn=_as_it_is,
            pin_memory=pin,
            persistent_workers=count > 0,
            # Its own, because the global one would be drawn from.
            generator=torch.Generator().manual_seed(0),
        )

    def __call__(self, requests: Sequence[Q]) -> Iterator[A]:
        """To be read to its end, or closed, before the next."""
        self._requests.now = requests
        for answer in self._loader:
            if isinstance(answer, ValueError):
                raise answer
            yield answer


class _Requests(Sampler[Q]):
    def __init__(self) -> None:
        self.now: Sequence[Q] = ()

    def __iter__(self) -> Iterator[Q]:
        return iter(self.now)

    def __len__(self) -> int:
        return len(self.now)


class _Answers(Dataset[A | ValueError], Generic[Q, A]):
    def __init__(self, answer: Callable[[Q], A]) -> None:
        self.answer = answer

    def __getitem__(self, request: Q) -> A | ValueError:
        try:
            return self.answer(request)
        except ValueError as error:  # Out of a worker it would come as pages of text.
            return error


def _as_it_is(answer: A) -> A:
    return answer
