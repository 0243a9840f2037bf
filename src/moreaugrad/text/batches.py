"""Maps of many texts: those of one length are explained together, so that none is padded."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from moreaugrad.explainers import METHODS, Explainer, build
from moreaugrad.explainers.anytime import Frame
from moreaugrad.explainers.calling import Progress
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.registry import choose
from moreaugrad.score.checks import ForwardError
from moreaugrad.settings import expect
from moreaugrad.text.encoding import Encoded
from moreaugrad.text.reading import PHRASE, PLACE, LanguageModel, Reader, Task
from moreaugrad.text.targets import ParsedTarget

PHRASE_SCORES = ("log-probability", "probability", "logit")
INDEX = "index"
"""The setting of methods with groups that says which tokens are one."""


def check_method(method: str) -> None:
    """Errors: ValueError for one whose maps are not those of token vectors."""
    if not of_vectors(method):
        raise ValueError(
            f"method: expected one whose map is that of the token vectors, got {method}, which "
            "explains the input itself"
        )


def of_vectors(method: str) -> bool:
    """Whether the maps of a method can be those of token vectors."""
    known = METHODS[method].defaults()
    return "layer" in known and "cam_layer" not in known


def usual_settings(language: LanguageModel, task: Task) -> dict[str, Any]:
    """Settings of methods on a model, where they are not given. "group" is for those with groups"""
    found: dict[str, Any] = {"layer": language.layer_name, "group": "tokens"}
    if task is Task.NEXT:
        found["score"] = "log-probability"
    elif (problem := getattr(language.config, "problem_type", None)) in PROBLEMS:
        found["task"] = PROBLEMS[problem]
    elif task is Task.TEXT and getattr(language.config, "num_labels", None) == 1:
        found["task"] = "regression"  # as transformers trains it
    return found


PROBLEMS = {"multi_label_classification": "multilabel", "regression": "regression"}
"""Kinds of task by the name that transformers has for them."""


def explainer_of(
    method: str, language: LanguageModel, task: Task, settings: Mapping[str, Any]
) -> Explainer:
    """The method for any text of a model. Errors: ValueError for settings that do not fit."""
    check_method(method)
    usual = usual_settings(language, task)
    if "group" not in METHODS[method].defaults():
        del usual["group"]
    return build(method, Reader(language.module, task), **{**usual, **settings})


def arguments_of(
    language: LanguageModel, read: Sequence[Encoded], aims: Sequence[ParsedTarget]
) -> tuple[Tensor, dict[str, Tensor]]:
    """The ids `[B, L]` of texts of one length, and a reader's further arguments by name."""
    phrases = [aim.phrase[:-1] for aim in aims]
    rows = [encoded.followed_by(phrase) for encoded, phrase in zip(read, phrases, strict=True)]
    further = {
        name: language.rows([columns[name] for _, columns in rows])
        for name in language.taken(read[0].further)
    }
    if aims[0].place is not None:
        further[PLACE] = language.rows([aim.place for aim in aims])
    if aims[0].phrase:
        further[PHRASE] = language.rows([aim.phrase for aim in aims])
    return language.rows([row for row, _ in rows]), further


@dataclass(frozen=True, kw_only=True, eq=False)
class Batches:
    """A method, for texts of a language model."""

    language: LanguageModel
    task: Task
    explainer: Explainer
    """As of `explainer_of`."""
    words: bool
    """Whether words are the groups of a method that has groups; otherwise tokens are."""
    special: bool
    """Whether special tokens are explained too."""

    def explained(
        self, read: Sequence[Encoded], aims: Sequence[ParsedTarget], ids: Sequence[int] | None,
        report: Progress | None,
    ) -> list[Explanation]:  # fmt: skip
        """The explanation of each text. ids: keys of its noise. report: called with progress."""
        if ids is not None:
            expect(
                len(ids) == len(read), "ids", f"{len(read)} numbers, one for each text", len(ids)
            )
        batches: dict[Hashable, list[int]] = {}
        for number, (encoded, aim) in enumerate(zip(read, aims, strict=True)):
            batches.setdefault(self.key(encoded, aim), []).append(number)
        found: dict[int, Explanation] = {}
        for numbers in batches.values():
            before = len(found)

            def progress(done: float, _: int, before: int = before) -> None:
                if report is not None:
                    report(before + done, len(read))

            explanation = self.together(
                [read[number] for number in numbers],
                [aims[number] for number in numbers],
                None if ids is None else [ids[number] for number in numbers],
                progress,
            )
            found |= zip(numbers, explanation, strict=True)
        return [found[number] for number in range(len(read))]

    def key(self, encoded: Encoded, aim: ParsedTarget) -> Hashable:
        """What texts that are explained together have in common."""
        groups = tuple(self._groups(encoded)) if self._grouped else None
        return len(encoded), groups, aim.index is None, len(aim.phrase)

    def together(
        self, read: Sequence[Encoded], aims: Sequence[ParsedTarget], ids: Sequence[int] | None,
        progress: Progress | None,
    ) -> Explanation:  # fmt: skip
        """The explanation of texts with the same `key`."""
        explainer, given, mask = self._call(read, aims)
        with _padding_named():
            found = explainer.explain(*given, ids=ids, mask=mask, progress=progress)
        return self._named(found, aims[0])

    def frames(
        self, encoded: Encoded, aim: ParsedTarget, meter: Callable[[int], None] | None = None
    ) -> Iterator[Frame]:
        """The explanation of one text while it is computed; see `Explainer.frames`."""
        explainer, given, mask = self._call([encoded], [aim])
        with _padding_named():
            for frame in explainer.frames(*given, mask=mask, meter=meter):
                yield replace(frame, explanation=self._named(frame.explanation, aim))

    def _call(
        self, read: Sequence[Encoded], aims: Sequence[ParsedTarget]
    ) -> tuple[Explainer, tuple[Any, ...], Tensor | None]:
        """The method for texts with the same `key`, its arguments and its mask."""
        tokens, further = arguments_of(self.language, read, aims)
        tail = [False] * (tokens.shape[1] - len(read[0]))
        mask = self.language.rows([self._explained(encoded) + tail for encoded in read]).bool()
        classes = [aim.index for aim in aims if aim.index is not None] or None
        explainer = self._explainer(list(further), read[0], aims[0])
        given = tokens, classes, tuple(further.values())
        return explainer, given, None if bool(mask.all()) else mask

    def _named(self, found: Explanation, aim: ParsedTarget) -> Explanation:
        """With the score that the method has, of a phrase too."""
        if not aim.phrase:
            return found
        return replace(found, settings={**found.settings, "score": self.explainer.score})

    def _explainer(self, names: Sequence[str], encoded: Encoded, aim: ParsedTarget) -> Explainer:
        """The method for such texts. names: of the reader's further arguments."""
        own: dict[str, Any] = {}
        if self._grouped:
            labels = self._groups(encoded)
            more = len(aim.phrase[:-1])
            own[INDEX] = torch.tensor(labels + [len(encoded) + at for at in range(more)])
        kind = self.explainer.score
        if aim.phrase:
            choose("score of a phrase", kind, PHRASE_SCORES)
            own |= {"score": "logit", "task": "regression"}
        reader = Reader(self.language.module, self.task, names, kind)
        return replace(self.explainer, forward_func=reader, **own)

    @property
    def _grouped(self) -> bool:
        return self.words and hasattr(self.explainer, INDEX)

    def _groups(self, encoded: Encoded) -> list[int]:
        """The label of each position: the same for the tokens of a word."""
        labels = list(range(len(encoded)))
        for word in encoded.words:
            for at in word.tokens:
                labels[at] = word.tokens[0]
        return labels

    def _explained(self, encoded: Encoded) -> list[bool]:
        """Which positions take part."""
        return [
            real and (self.special or not special)
            for real, special in zip(encoded.real, encoded.special, strict=True)
        ]


@contextmanager
def _padding_named() -> Iterator[None]:
    """Errors: ForwardError of a model without a padding token, with what to do."""
    try:
        yield
    except ForwardError as error:
        if "padding token" not in str(error):
            raise
        raise ForwardError(
            f"{error}: set model.config.pad_token_id, for example to tokenizer.eos_token_id; "
            "no text is padded"
        ) from error
