"""Maps of many texts: those of one length are explained together, so that none is padded."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from moreaugrad.explainers import METHODS, Explainer, build
from moreaugrad.explainers.calling import Progress
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.registry import choose
from moreaugrad.score.checks import ForwardError
from moreaugrad.score.hooks import name_of
from moreaugrad.settings import expect
from moreaugrad.text.encoding import Encoded
from moreaugrad.text.reading import PHRASE, PLACE, LanguageModel, Reader, Task
from moreaugrad.text.targets import Aim

PHRASE_SCORES = ("log-probability", "probability", "logit")


@dataclass(frozen=True, kw_only=True, eq=False)
class Batches:
    """A method with its settings, for texts of a language model."""

    language: LanguageModel
    task: Task
    method: str
    settings: Mapping[str, Any]
    words: bool
    """Whether words are the groups of a method that has groups; otherwise tokens are."""
    special: bool
    """Whether special tokens are explained too."""

    def explained(
        self, read: Sequence[Encoded], aims: Sequence[Aim], ids: Sequence[int] | None,
        report: Progress | None,
    ) -> list[Explanation]:  # fmt: skip
        """The explanation of each text. ids: keys of its noise. report: called with progress."""
        if ids is not None:
            expect(
                len(ids) == len(read), "ids", f"{len(read)} numbers, one for each text", len(ids)
            )
        batches: dict[Hashable, list[int]] = {}
        for number, (encoded, aim) in enumerate(zip(read, aims, strict=True)):
            batches.setdefault(self._key(encoded, aim), []).append(number)
        found: dict[int, Explanation] = {}
        for numbers in batches.values():
            before = len(found)

            def progress(done: float, _: int, before: int = before) -> None:
                if report is not None:
                    report(before + done, len(read))

            explanation = self._together(
                [read[number] for number in numbers],
                [aims[number] for number in numbers],
                None if ids is None else [ids[number] for number in numbers],
                progress,
            )
            found |= zip(numbers, explanation, strict=True)
        return [found[number] for number in range(len(read))]

    def _key(self, encoded: Encoded, aim: Aim) -> Hashable:
        """What texts that are explained together have in common."""
        groups = tuple(self._groups(encoded)) if self._grouped else None
        return len(encoded), groups, aim.index is None, len(aim.phrase)

    def _together(
        self, read: Sequence[Encoded], aims: Sequence[Aim], ids: Sequence[int] | None,
        progress: Progress,
    ) -> Explanation:  # fmt: skip
        phrases = [aim.phrase[:-1] for aim in aims]
        rows = [encoded.followed_by(phrase) for encoded, phrase in zip(read, phrases, strict=True)]
        further = {
            name: self.language.rows([columns[name] for _, columns in rows])
            for name in self.language.taken(read[0].further)
        }
        if aims[0].place is not None:
            further[PLACE] = self.language.rows([aim.place for aim in aims])
        if phrases[0]:
            further[PHRASE] = self.language.rows([aim.phrase for aim in aims])
        tail = [False] * len(phrases[0])
        mask = self.language.rows([self._explained(encoded) + tail for encoded in read]).bool()
        explainer = self.explainer(list(further), read[0], aims[0])
        classes = [aim.index for aim in aims if aim.index is not None] or None
        try:
            found = explainer.explain(
                self.language.rows([row for row, _ in rows]), classes, tuple(further.values()),
                ids=ids, mask=None if bool(mask.all()) else mask, progress=progress,
            )  # fmt: skip
        except ForwardError as error:
            if "padding token" not in str(error):
                raise
            raise ForwardError(
                f"{error}: set model.config.pad_token_id, for example to tokenizer.eos_token_id; "
                "no text is padded"
            ) from error
        noted = {"layer": name_of(self.language.module, self.language.layer)}
        if phrases[0]:
            noted["score"] = self._kind
        return replace(found, settings={**found.settings, **noted})

    def explainer(self, names: Sequence[str], encoded: Encoded, aim: Aim) -> Explainer:
        """The method for such texts. names: of the reader's further arguments.

        Errors: ValueError for settings that do not fit.
        """
        own: dict[str, Any] = {"layer": self.language.layer, **self.settings}
        known = METHODS[self.method].defaults()
        if "cam_layer" in known:
            raise ValueError(
                f"method: expected one whose map is that of the token vectors, got {self.method}, "
                "which explains the input itself"
            )
        if "group" in known:
            own["group"] = "tokens"
        if self._grouped:
            labels = self._groups(encoded)
            more = len(aim.phrase[:-1])
            own["index"] = torch.tensor(labels + [len(encoded) + at for at in range(more)])
        kind = "logit"
        if aim.phrase:
            kind = choose("score of a phrase", self._kind, PHRASE_SCORES)
            own |= {"score": "logit", "task": "regression"}
        reader = Reader(self.language.module, self.task, names, kind)
        return build(self.method, reader, **own)

    @property
    def _kind(self) -> str:
        return str(self.settings.get("score", "logit"))

    @property
    def _grouped(self) -> bool:
        return self.words and "index" in METHODS[self.method].defaults()

    def _groups(self, encoded: Encoded) -> list[int]:
        """The label of each position: the same for the tokens of a word."""
        labels = list(range(len(encoded)))
        for word in encoded.words():
            for at in word.tokens:
                labels[at] = word.tokens[0]
        return labels

    def _explained(self, encoded: Encoded) -> list[bool]:
        """Which positions take part."""
        return [
            real and (self.special or not special)
            for real, special in zip(encoded.real, encoded.special, strict=True)
        ]
