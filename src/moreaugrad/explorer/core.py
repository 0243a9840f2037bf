"""What all shells of the explorer ask for: inputs, maps in frames, probabilities, curves."""

from __future__ import annotations

import hashlib
import io
import json
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moreaugrad.attacks.descent import TopKAttack
from moreaugrad.curvature.second_derivatives import softplus_surrogate
from moreaugrad.data.dataset import Chosen
from moreaugrad.data.images import decode_upload
from moreaugrad.explainers import METHODS
from moreaugrad.explainers.anytime import Frame
from moreaugrad.explainers.gradient import SimpleGradient
from moreaugrad.explainers.quality import QUALITIES
from moreaugrad.explorer.state import State, threshold
from moreaugrad.explorer.turns import Gone, Turn, Turns
from moreaugrad.files.foreign import shown
from moreaugrad.metrics.faithfulness import Replacement, area, deletion_curve, insertion_curve
from moreaugrad.metrics.places import BLUR, MEAN, Places, replacement
from moreaugrad.pictures import palette
from moreaugrad.registry import choose, first_line
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.explain import IMAGES, TEXTS, ExplainPlan
from moreaugrad.runs.plans.texts import TextPlan
from moreaugrad.runs.plans.toml import from_table
from moreaugrad.runs.recommend.fit import BETA, has_kinks
from moreaugrad.runs.texts import Texts
from moreaugrad.score.score import Score
from moreaugrad.settings import expect
from moreaugrad.text.batches import of_vectors

UPLOAD_BYTES, UPLOAD_PIXELS = 2**25, 2**26
"""Of the largest image that is taken."""
KEPT = 64
"""Images that are kept; those that were used longest ago are forgotten."""
LEFT_OUT = ("published-moreaugrad", "expected-gradients")
"""Methods that have settings of their own, or need several images."""
USUAL: Mapping[str, Any] = {TEXTS: {"method": "group-sparse-moreaugrad", "sparsity": 0.5}}
"""Where pages of other inputs than images begin."""
STEPS = 24
"""Of the deletion and insertion curves."""
ATTACK: Mapping[str, Any] = {"norm": "linf", "units": "pixel", "steps": 8, "ratio": 0.1}
CURVES = {"deletion": (deletion_curve, MEAN), "insertion": (insertion_curve, BLUR)}
ACTIONS = ("info", "open", "explain", "edit", "curves", "arrays", "attack")
"""The first three are of every kind of input, the others of images."""

Message = tuple[dict[str, Any], bytes]
"""What a shell is answered: plain values, and arrays as bytes."""
Asked = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Image:
    """x: `[1, C, H, W]`; of other inputs as the network takes them. options: that name it on the
    command line."""

    name: str
    x: Tensor
    options: Asked
    inputs: Inputs
    one: Chosen


@dataclass(kw_only=True, eq=False)
class Explorer:
    """A network and its inputs, explored by several users."""

    network: Network
    inputs: Inputs | None = None
    options: Mapping[str, Any] | None = None
    """Of the network, on the command line; None: it is not loaded by one."""
    state: Asked = field(default_factory=dict)
    """Where pages begin: values of `State`."""
    labels: Sequence[str] = ()
    """Of the classes, where the network has none of its own."""
    text: TextPlan = field(default_factory=TextPlan)
    """How texts are read that are opened in the page."""
    _turns: Turns = field(default_factory=Turns)
    _images: dict[str, _Image] = field(default_factory=dict)
    _keeping: threading.Lock = field(default_factory=threading.Lock)

    def answer(
        self,
        asked: Any,
        body: bytes = b"",
        user: str = "",
        gone: Callable[[], bool] = lambda: False,
    ) -> Iterator[Message]:
        """The messages that answer a request, as soon as they are known; "refused" is an error.

        asked: "do", one of `ACTIONS`, and its arguments. gone: whether the request was given up,
        which is noticed after the network pass that is being computed.
        """
        try:
            expect(isinstance(asked, dict), "a request", "a JSON object", asked)
            given = {k: v for k, v in _without_none(asked).items() if k != "do"}
            known = ACTIONS if self.network.kind == IMAGES else ACTIONS[:3]
            action = getattr(self, f"_{choose('do', str(asked.get('do')), known)}")
            yield from action(given, body, Turn(self._turns, user, gone))
        except Gone:
            return
        except Exception as error:  # models are code of others, which may raise anything
            words = str(error) if isinstance(error, ValueError) else first_line(error)
            yield {"refused": words}, b""

    def _info(self, asked: Asked, body: bytes, turn: Turn) -> Iterator[Message]:
        kind, chosen = self.network.kind, [] if self.inputs is None else self.inputs.chosen
        methods = {
            name: {"summary": row.summary, "settings": list(row.defaults())}
            for name, row in METHODS.items()
            if name not in LEFT_OUT and (kind != TEXTS or of_vectors(name))
        }  # fmt: skip
        yield {
            "model": shown(self.network.model.name), "methods": methods, "qualities": QUALITIES,
            "images": [{"id": str(at), "name": shown(c.item.name)} for at, c in enumerate(chosen)],
            "labels": list(map(shown, self.network.model.labels or self.labels)), "kind": kind,
            "state": {**vars(State(image="")), **USUAL.get(kind, {}), **self.state},
            "palettes": {name: palette(name).tolist() for name in ("magma", "blue-white-orange")},
        }, b""  # fmt: skip

    def _open(self, asked: Asked, body: bytes, turn: Turn) -> Iterator[Message]:
        key, name = str(asked.get("image")), shown(str(asked.get("name"))[:200])
        with turn:
            if body:
                key = hashlib.sha256(body).hexdigest()[:16]
                expect(len(body) <= UPLOAD_BYTES, name, f"at most {UPLOAD_BYTES} bytes", len(body))
            image = self._image(key, self._uploaded(body, name) if body else None)
            found = self._predicted(image)
        data = image.inputs.page(image.one, image.x[0].cpu(), self.network)
        about = {"image": key, "name": shown(image.name), "shape": list(image.x.shape[1:])}
        yield {**about, **found}, data

    def _uploaded(self, body: bytes, name: str) -> _Image:
        if self.network.kind == TEXTS:
            text = replace(self.text, texts=(body.decode(errors="replace"),), column=None)
            texts = Texts.open(ExplainPlan(text=text), self.network)
            return replace(self._made(texts, texts.chosen[0]), name=name)
        here = self.network.kind == IMAGES
        expect(here, name, "series and volumes on the command line", "a file here")
        x = self.network.model.preprocess(decode_upload(body, name, UPLOAD_PIXELS))
        images = Inputs.of(self.network.batch([x]), names=[name])
        return self._made(images, images.chosen[0])

    def _explain(self, asked: Asked, body: bytes, turn: Turn) -> Iterator[Message]:
        state, network = from_table(State, asked), self.network
        image = self._image(state.image)
        inputs, target = image.inputs.aimed(image.one, state.target, network)
        state = replace(state, target=target)
        explainer = state.explainer(network, inputs if inputs.of_texts else None)
        seen = network.kind == IMAGES
        rule = threshold(explainer, image.x.shape[1:]) if seen else {"kind": "drawn"}
        recipes = state.recipes(image.options, self.options, inputs.in_python(target, network))
        yield {**recipes, "threshold": rule}, b""
        begun = time.monotonic()
        with turn:
            given = image.one, image.x, network, explainer, target, turn
            for frame, page in inputs.frames(*given):
                gradient = frame.explanation.maps if rule["kind"] == "keep" else frame.gradient
                yield _framed(frame, gradient, time.monotonic() - begun, page)
                turn()

    def _edit(self, asked: Asked, body: bytes, turn: Turn) -> Iterator[Message]:
        """Probabilities with the pixels of a mask `[H, W]` replaced."""
        x = self._image(asked["image"]).x
        where = torch.from_numpy(_array(body, np.uint8, x.shape[-2:])).to(x.device) > 0
        rule = Replacement(replacement=choose("how", asked["how"], (BLUR, MEAN)))
        with turn:
            bound = Score(self.network.model.module, check=False).bind(x, 0)
            source, places = np.random.default_rng(0), Places(bound, 1)
            flat = replacement(rule, bound.origin[0], bound, self.network.space, places, source)
            edited = torch.where(where, flat.reshape(x.shape).to(x), x)
            yield {"probabilities": self._probabilities(edited)}, b""

    def _curves(self, asked: Asked, body: bytes, turn: Turn) -> Iterator[Message]:
        """The deletion and insertion curves of a map `[C, H, W]`."""
        x, size = self._image(asked["image"]).x, asked.get("size", 4)
        maps = torch.from_numpy(_array(body, np.float32, x.shape)).to(x.device)
        found: dict[str, Any] = {"size": size}
        with turn:
            score = Score(self.network.model.module, kind="probability", check=False)
            bound = replace(score.bind(x, asked["target"]), meter=turn)
            for name, (curve, by) in CURVES.items():
                how = Replacement(size=size, replacement=by, draws=1)
                values = curve(bound, maps, self.network.space, steps=STEPS, how=how)
                found[name] = list(map(_known, values[0].tolist()))
                found[f"{name} area"] = _known(float(area(values)))
        yield found, b""

    def _attack(self, asked: Asked, body: bytes, turn: Turn) -> Iterator[Message]:
        """Opens the image after a change of each pixel by at most `budget` 255ths, which keeps the
        class and lowers the fraction of the plain gradient that its largest tenth has."""
        budget, target = float(asked["budget"]), asked["target"]
        one, key = self._image(asked["image"]), f"{asked['image']} {target} {budget}"
        if key not in self._images:
            module = self.network.model.module
            kinks = has_kinks(self.network, one.x)
            source = SimpleGradient(softplus_surrogate(module, BETA) if kinks else module)
            attack = TopKAttack(SimpleGradient(module), source=source, epsilon=budget / 255,
                                space=self.network.space, **ATTACK)  # fmt: skip
            with turn:
                found = attack.attack(one.x, target, progress=lambda *_: turn())
            expect(found.ok, "the attack", "one that runs", "; ".join(found.problems()))
            assert isinstance(found.inputs, Tensor)
            self._image(key, replace(one, x=found.inputs))
        yield from self._open({"image": key}, b"", turn)

    def _arrays(self, asked: Asked, body: bytes, turn: Turn) -> Iterator[Message]:
        """Arrays of a map that is shown, its image and its state, as an npz file."""
        state, file = from_table(State, _without_none(asked["state"])), io.BytesIO()
        names = [choose("arrays", one, ("map", "gradient", "z")) for one in asked["arrays"]]
        x = self._image(state.image).x[0].cpu().numpy()
        values = _array(body, np.float32, (len(names), *x.shape))
        about = json.dumps({"model": self.network.model.name, **vars(state)})
        np.savez(file, input=x, state=np.array(about), **dict(zip(names, values, strict=True)))
        yield {}, file.getvalue()

    def _image(self, key: str, new: _Image | None = None) -> _Image:
        """new: is kept under this key. Errors: ValueError for one that is not known any more, or
        cannot be read."""
        with self._keeping:
            known = self._images.pop(key, None)
            image = new or known
            if image is None:
                chosen = [] if self.inputs is None else self.inputs.chosen
                if self.inputs is None or not key.isdecimal() or int(key) >= len(chosen):
                    raise ValueError("the input is no longer known: open it again")
                image = self._made(self.inputs, chosen[int(key)])
            self._images[key] = image
            for longest_ago in list(self._images)[:-KEPT]:
                del self._images[longest_ago]
        return image

    def _made(self, inputs: Inputs, one: Chosen) -> _Image:
        inputs, _ = inputs.aimed(one, None, self.network)
        x, options = inputs.tried(one, self.network), inputs.named(one)
        return _Image(name=one.item.name, x=x, options=options, inputs=inputs, one=one)

    def _predicted(self, image: _Image) -> dict[str, Any]:
        """Probabilities by class; of texts the largest ones, with the names of these classes."""
        inputs, one, x = image.inputs, image.one, image.x
        if not inputs.of_texts:
            return {"probabilities": self._probabilities(x)}
        task = inputs.settings(self.network).get("task", "auto")
        of_token = inputs.aimed(one, None, self.network)[1] is not None
        found = [] if of_token else inputs.predictions(one, x[0], self.network, task)
        names = {record["class"]: shown(record["label"]) for record in found}
        return {"probabilities": {r["class"]: r["probability"] for r in found}, "names": names}

    def _probabilities(self, x: Tensor) -> list[float | None]:
        """Of every class; none where the outputs are no classes."""
        found = self.network.probabilities(x)
        return [] if found is None else list(map(_known, found[0].tolist()))


def _framed(frame: Frame, gradient: Any, seconds: float, page: bytes | None) -> Message:
    found = frame.explanation
    (status,), error, z = found.status, float(found.error[0]), found.z_scores
    parts = {"gradient": gradient, **({} if z is None else {"z": z})}
    header = {
        "done": frame.done, "status": status.message if frame.done else "computing",
        "failed": status.failed, "remedy": found.remedy(0) if frame.done else "",
        "error": _known(error), "eta": _known(float(found.eta[0])), "seconds": seconds,
        "evaluations": int(found.evaluations[0]), "target": int(found.target[0]),
        "arrays": list(parts),
    }  # fmt: skip
    if page is not None:
        return header, page
    return header, b"".join(part[0].float().cpu().numpy().tobytes() for part in parts.values())


def _without_none(values: Asked) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _array(body: bytes, dtype: Any, shape: tuple[int, ...]) -> Any:
    """Errors: ValueError for another number of bytes."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    expect(len(body) == size, "the array", f"{size} bytes for {list(shape)}", len(body))
    return np.frombuffer(body, dtype).reshape(shape).copy()
