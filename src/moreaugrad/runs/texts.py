"""The texts of a run, as language models read them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor, nn

from moreaugrad.data.dataset import Chosen, Item, choose_images
from moreaugrad.data.source import NamedFiles
from moreaugrad.data.texts import NamedText, read_texts
from moreaugrad.explainers.anytime import Frame
from moreaugrad.explainers.base import Explainer
from moreaugrad.explainers.explanation import Explanation
from moreaugrad.files.foreign import some
from moreaugrad.files.units import Record
from moreaugrad.pictures import Style
from moreaugrad.reports.folder import csv_bytes
from moreaugrad.runs.inputs import UNREADABLE, Inputs
from moreaugrad.runs.names import unique_names
from moreaugrad.runs.network import Network, likeliest
from moreaugrad.runs.plans.explain import ExplainPlan
from moreaugrad.runs.plans.option import given_options
from moreaugrad.runs.plans.texts import WORDS, TextPlan
from moreaugrad.score.forward import forward
from moreaugrad.score.targets import Readout
from moreaugrad.text.batches import Batches, arguments_of, usual_settings
from moreaugrad.text.drawing import Drawn, Segment, html_lines
from moreaugrad.text.encoding import Encoded
from moreaugrad.text.explanation import TextExplanation, value_of
from moreaugrad.text.model import TextModel
from moreaugrad.text.reading import PHRASE, Reader, Task
from moreaugrad.text.targets import Classes, ParsedTarget

AT = "@"
"""Between the class and the token of a target."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reading:
    """How a network reads the texts. module: its outputs for any of them."""

    model: TextModel
    classes: Classes
    module: nn.Module
    target: int | str | None
    known: dict[int, tuple[Encoded, ParsedTarget]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, eq=False)
class Texts(Inputs):
    """asked: how they are explained. texts: all that there are, of which some are `chosen`.
    readings: by the networks' ids."""

    asked: TextPlan
    texts: Sequence[NamedText]
    layer: str | None
    readings: dict[int, _Reading] = field(default_factory=dict)

    of_texts = True

    @classmethod
    def open(cls, plan: ExplainPlan, network: Network) -> Texts:  # type: ignore[override]
        """Errors: ValueError for no texts, and a network that reads none of them."""
        asked = plan.text or TextPlan()
        given = [NamedText(f"text {n}", text) for n, text in enumerate(asked.texts, 1)]
        texts = [*read_texts(plan.data.files, asked.column), *given]
        items = [Item(name=text.name) for text in texts]
        data = NamedFiles(layout="texts", items=items, paths={})
        chosen = choose_images(
            data, plan.data.images, seed=plan.seed, indices=plan.data.indices
        )  # fmt: skip
        common = plan.settings.get("layer")
        layers = {own.get("layer", common) for own in plan.methods.values()} or {common}
        if len(layers) > 1:
            shown = some(sorted(map(str, layers)))
            raise ValueError(f"layer: expected one for all methods of texts (--layer), got {shown}")
        found = cls(
            plan=plan.data, data=data, chosen=chosen, asked=asked, texts=texts,
            layer=layers.pop(),
        )  # fmt: skip
        found.target(plan.target, network)
        read = [(one.index, texts[one.index], found._ids(one, network)) for one in chosen]
        digest = hashlib.sha256(repr(read).encode()).hexdigest()[:16]
        counted = None if plan.data.indices else len(chosen)
        return replace(found, plan=replace(plan.data, images=counted, digest=digest))

    def _ids(self, one: Chosen, network: Network) -> list[int]:
        try:
            return self._read(one, network)[0].ids
        except UNREADABLE:
            return []

    def target(self, target: int | str | None, network: Network) -> int | None:
        """The class by its index; None for CLASS@TOKEN and a phrase, which are of each text.

        From then on the network reads the texts for this target. Errors: ValueError for a network
        that does not read texts or any of these, and for an unknown class.
        """
        model = network.model
        if model.tokenizer is None:
            raise ValueError(
                f"texts: expected a language model and its tokenizer, got {model.name}: name one, "
                "as hf:FOLDER, or its tokenizer too (--tokenizer)"
            )
        reader = TextModel.of(model.module, model.tokenizer, self.layer)
        first = self._first_read(reader)
        classes = reader.classes(first, model.labels)
        index = None if classes.task is Task.TOKEN else classes.aim(target, first).index
        self.readings[id(network)] = _Reading(
            model=reader, classes=classes, target=target,
            module=Reader(reader.language.module, classes.task),
        )  # fmt: skip
        return index if classes.task is Task.TEXT else None

    def targets(
        self, chosen: Sequence[Chosen], target: int | str | None, network: Network
    ) -> Tensor | int | None:
        return None  # they are known since `target`

    def _first_read(self, reader: TextModel) -> Encoded:
        """The first text that can be read. Errors: ValueError where there is none."""
        problems = []
        for one in self.chosen:
            try:
                return self._encoded(one, reader)
            except UNREADABLE as error:
                problems.append(str(error))
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ValueError(f"{problems[0]}{more}")

    def _encoded(self, one: Chosen, reader: TextModel, room: int = 0) -> Encoded:
        name, text = self.texts[one.index]
        return reader.encoded((text,), name, truncate=self.asked.truncate, room=room)

    def _read(self, one: Chosen, network: Network) -> tuple[Encoded, ParsedTarget]:
        """The tokens of a text and what is explained of it. Errors: ValueError, TypeError."""
        reading = self.readings[id(network)]
        if one.index not in reading.known:
            room = reading.classes.room(reading.target)
            found = reading.classes.read(self._encoded(one, reading.model, room))
            name = self.texts[one.index].name
            if self.asked.units == WORDS and not found.words:
                raise ValueError(
                    f"{name}: expected --units tokens, because the tokenizer does not say which "
                    "characters its tokens are"
                )
            try:
                aim = reading.classes.aim(self.in_python(reading.target, network), found)
            except (ValueError, TypeError) as error:
                raise ValueError(f"{name}: {error}") from error
            reading.known[one.index] = found, aim
        return reading.known[one.index]

    def input(self, one: Chosen, network: Network) -> Tensor:
        """The numbers of its tokens, `[L]`."""
        return torch.tensor(self._read(one, network)[0].ids)

    def tried(self, one: Chosen, network: Network) -> Tensor:
        return network.batch([self.input(one, network)])

    def first(self, network: Network) -> Tensor:
        """The longest text that can be read. Errors: ValueError where there is none."""
        found = self.few(network, len(self.chosen)) or [super().first(network)]
        return max(found, key=lambda ids: ids.shape[1])

    @property
    def notes(self) -> list[str]:
        """What is not as it was given."""
        short = {
            self.texts[index].name: None
            for reading in self.readings.values()
            for index, (encoded, _) in reading.known.items() if encoded.note
        }  # fmt: skip
        if not short:
            return []
        count = f"{len(short)} of {len(self.chosen)} texts"
        return [
            f"longer than the model takes, so that only their beginning was read: {count}, "
                + some(short)]  # fmt: skip

    def module(self, network: Network) -> nn.Module:
        return self.readings[id(network)].module

    def settings(self, network: Network) -> dict[str, Any]:
        reading = self.readings[id(network)]
        return usual_settings(reading.model.language, reading.classes.task)

    def _batches(self, network: Network, explainer: Explainer) -> Batches:
        reading = self.readings[id(network)]
        return Batches(
            language=reading.model.language, task=reading.classes.task, explainer=explainer,
            words=self.asked.units == WORDS, special=self.asked.special,
        )  # fmt: skip

    def alike(self, one: Chosen, x: Tensor, network: Network, explainer: Explainer) -> Hashable:
        return self._batches(network, explainer).key(*self._read(one, network))

    def explain(
        self, rows: Sequence[Chosen], x: Tensor, network: Network, explainer: Explainer,
        target: Tensor | int | None, **how: Any,
    ) -> Explanation:  # fmt: skip
        read, aims = zip(*[self._read(one, network) for one in rows], strict=True)
        return self._batches(network, explainer).together(read, aims, **how)

    def aimed(
        self, one: Chosen, target: int | str | None, network: Network
    ) -> tuple[Self, int | str | None]:
        """Where tokens are classified, it is the prediction at the first one."""
        reading = self.readings[id(network)]
        if target is None and reading.classes.task is Task.TOKEN:
            target = f"{AT}{self._encoded(one, reading.model).own[0]}"
        own = replace(reading, target=target, known={})
        return replace(self, readings={id(network): own}), target

    def in_python(self, target: int | str | None, network: Network) -> object:
        """As `text.explain` takes it: (class, token) for CLASS@TOKEN."""
        tokens = self.readings[id(network)].classes.task is Task.TOKEN
        if not (tokens and isinstance(target, str) and AT in target):
            return target
        wanted, _, token = target.rpartition(AT)
        return _number(wanted) if wanted else None, _number(token)

    def frames(
        self, one: Chosen, x: Tensor, network: Network, explainer: Explainer,
        target: int | str | None, meter: Callable[[int], None] | None,
    ) -> Iterator[tuple[Frame, bytes | None]]:  # fmt: skip
        read = self._read(one, network)
        for frame in self._batches(network, explainer).frames(*read, meter):
            found = self._explained(one, frame.explanation, explainer, network)
            yield frame, found._repr_html_().encode()

    def predictions(self, one: Chosen, x: Tensor, network: Network, task: str) -> list[Record]:
        reading = self.readings[id(network)]
        encoded, aim = self._read(one, network)
        ids, further = arguments_of(
            reading.model.language, [encoded], [replace(aim, phrase=())]
        )  # fmt: skip
        further.pop(PHRASE, None)
        reader = Reader(reading.model.language.module, reading.classes.task, list(further))
        with torch.no_grad():
            outputs = forward(reader, ids, *further.values()).cpu().double()
        probabilities = Readout(task=task).probabilities(outputs)
        return [] if probabilities is None else likeliest(probabilities, reading.classes.name)[0]

    def shown(self, one: Chosen, x: Tensor, network: Network) -> tuple[Record, dict[str, bytes]]:
        encoded, _ = self._read(one, network)
        note = {"note": encoded.note} if encoded.note else {}
        text = self.texts[one.index].text
        return {"text": text, **note}, {"text.txt": text.encode()}

    def page(self, one: Chosen, x: Tensor, network: Network) -> bytes:
        return html_lines(Drawn([[Segment(self.texts[one.index].text)]], (), "")).encode()

    def named(self, one: Chosen) -> dict[str, Any]:
        """The text itself, whatever file it is from, and how it is read."""
        how = given_options(replace(self.asked, texts=(), column=None))
        return {"--text": [self.texts[one.index].text], **how}

    def described(
        self, one: Chosen, found: Explanation, explainer: Explainer, network: Network
    ) -> Record:
        own = self._explained(one, found, explainer, network)
        index = None if own.prediction is None else int(found.target)
        at = {} if own.place is None else {"at": own.tokens[own.place]}
        return {"target": {"class": index, "label": own.target, **at}, "tokens": own.record()}

    def drawn(
        self, one: Chosen, x: Tensor, found: Explanation, explainer: Explainer, network: Network,
        style: Style, about: Record,
    ) -> dict[str, bytes]:  # fmt: skip
        """A table of the tokens."""
        return {"tokens.csv": csv_bytes(self._explained(one, found, explainer, network).rows())}

    def _explained(
        self, one: Chosen, found: Explanation, explainer: Explainer, network: Network
    ) -> TextExplanation:
        encoded, aim = self._read(one, network)
        value = value_of(self.asked.values, explainer)
        classes = self.readings[id(network)].classes
        return TextExplanation.of(encoded, found, value, self.asked.units, classes, aim)

    def folders(self) -> dict[int, str]:
        names = unique_names([one.item.name for one in self.chosen])
        return {one.index: f"inputs/{n}" for one, n in zip(self.chosen, names, strict=True)}


def _number(text: str) -> int | str:
    return int(text) if text.isdecimal() else text
