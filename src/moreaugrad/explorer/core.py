"""What all shells of the explorer ask for: images, maps in frames, probabilities, curves."""

from __future__ import annotations

import hashlib
import io
import json
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from moreaugrad.data.images import decode_image
from moreaugrad.explainers import METHODS
from moreaugrad.explainers.anytime import Frame
from moreaugrad.explainers.quality import QUALITIES
from moreaugrad.explorer.state import State, given_options, threshold
from moreaugrad.explorer.turns import Turns
from moreaugrad.files.foreign import MOST_PIXELS, open_image, parsing, shown
from moreaugrad.metrics.faithfulness import Replacement, area, deletion_curve, insertion_curve
from moreaugrad.metrics.places import BLUR, MEAN, Places, replacement
from moreaugrad.pictures import png_bytes
from moreaugrad.pictures.levels import palette
from moreaugrad.registry import choose
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.toml import from_table
from moreaugrad.score.score import Score
from moreaugrad.settings import expect

UPLOAD_LIMIT, UPLOAD_PIXELS = 32 * 2**20, MOST_PIXELS // 2
"""Bytes and pixels of the largest image that is taken."""
KEPT = 64
"""Images that are kept; those that were used longest ago are forgotten."""
LEFT_OUT = ("published-moreaugrad", "expected-gradients")
"""Methods that need more than one image, or have their own settings."""
CLASSES = 8
"""Likeliest classes that are shown."""
STEPS = 24
"""Of the insertion and deletion curves."""

Message = tuple[dict[str, Any], bytes]
"""What a shell is answered: plain values, and arrays as bytes."""
Asked = Mapping[str, Any]


def _still_wanted() -> bool:
    return False


@dataclass(frozen=True, kw_only=True, eq=False)
class _Image:
    """x: `[1, C, H, W]`. options: that name it on the command line."""

    name: str
    x: Tensor
    options: Mapping[str, Any]


@dataclass(kw_only=True, eq=False)
class Explorer:
    """A network and images, explored by several users. inputs: None without images."""

    network: Network
    inputs: Inputs | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    """Of the network, on the command line."""
    turns: Turns = field(default_factory=Turns)
    _images: OrderedDict[str, _Image] = field(default_factory=OrderedDict)

    def answer(
        self,
        asked: Asked,
        body: bytes = b"",
        user: str = "",
        gone: Callable[[], bool] = _still_wanted,
    ) -> Iterator[Message]:
        """The messages that answer a request, as soon as they are known.

        asked: "do", one of `_ACTIONS`, and its arguments. gone: whether the answer is still wanted.
        Errors: ValueError for a request that cannot be answered, Gone for one that was given up.
        """
        expect(isinstance(asked, Mapping), "a request", "a JSON object", type(asked).__name__)
        given = {k: v for k, v in asked.items() if k != "do" and v is not None}
        action = _ACTIONS[choose("do", str(asked.get("do")), _ACTIONS)]
        try:
            yield from action(self, given, body, user, gone)
        except TypeError as error:  # values of other types than asked for
            raise ValueError(f"the request does not fit ({error})") from error

    def _info(self, asked: Asked, body: bytes, user: str, gone: Any) -> Iterator[Message]:
        names = [] if self.inputs is None else [one.item.name for one in self.inputs.chosen]
        yield {
            "model": shown(self.network.model.name),
            "images": [{"id": f"{at}", "name": shown(name)} for at, name in enumerate(names)],
            "labels": list(map(shown, self.network.model.labels or ())),
            "methods": {
                name: {"summary": row.summary, "settings": sorted(row.defaults().keys())}
                for name, row in METHODS.items() if name not in LEFT_OUT
            },
            "qualities": QUALITIES,
            "palettes": {name: palette(name).tolist() for name in ("magma", "blue-white-orange")},
        }, b""  # fmt: skip

    def _open(self, asked: Asked, body: bytes, user: str, gone: Any) -> Iterator[Message]:
        key = str(asked.get("image", ""))
        if body:
            key = hashlib.sha256(body).hexdigest()[:16]
            self._keep(key, self._decoded(body, str(asked.get("name", "image"))[:200]))
        image = self._image(key)
        with self.turns.turn(user, gone):
            found = self._likeliest(image.x)
        pixels = self.network.model.preprocess.pixels(image.x[0].cpu())
        shown_as = png_bytes((pixels.numpy() * 255).round().astype(np.uint8))
        shape = list(image.x.shape[1:])
        yield {"image": key, "name": shown(image.name), "shape": shape, "classes": found}, shown_as

    def _explain(self, asked: Asked, body: bytes, user: str, gone: Any) -> Iterator[Message]:
        state = from_table(State, asked)
        image, explainer = self._image(state.image), state.explainer(self.network)
        kind = threshold(explainer, tuple(image.x.shape[1:]))
        yield {**state.recipes(image.options, self.options), "threshold": kind}, b""
        begun = time.monotonic()
        with self.turns.turn(user, gone) as between:
            for frame in explainer.frames(image.x, state.target, meter=between):
                yield self._frame(frame, kind, time.monotonic() - begun)
                between()

    def _frame(self, frame: Frame, kind: Asked, seconds: float) -> Message:
        found = frame.explanation
        (status,), error, eta = found.status, float(found.error[0]), float(found.eta[0])
        gradient = (
            found.maps if frame.gradient is None or kind["kind"] == "keep" else frame.gradient
        )
        assert isinstance(gradient, Tensor)
        assert not isinstance(found.z_scores, tuple)
        parts = {"gradient": gradient, "z": found.z_scores}
        arrays = {k: v[0].float().cpu().contiguous().numpy() for k, v in parts.items()
                  if v is not None}  # fmt: skip
        words = status.described(error) if frame.done else "still computing"
        header = {
            "done": frame.done, "status": words, "ok": status.ok, "error": _known(error),
            "remedy": found.remedy(0) if frame.done else "", "eta": _known(eta),
            "failed": status.failed, "evaluations": int(found.evaluations[0]), "seconds": seconds,
            "target": int(found.target[0]), "arrays": list(arrays),
        }  # fmt: skip
        return header, b"".join(array.tobytes() for array in arrays.values())

    def _edit(self, asked: Asked, body: bytes, user: str, gone: Any) -> Iterator[Message]:
        """Probabilities with the pixels of a mask `[H, W]` replaced."""
        x = self._image(asked["image"]).x
        mask = _array(body, np.uint8, x.shape[-2:])
        how = choose("how", asked["how"], (BLUR, MEAN))
        with self.turns.turn(user, gone):
            edited = torch.where(torch.from_numpy(mask).to(x.device) > 0, self._filled(x, how), x)
            found = self._probabilities(edited)
            classes = [int(one) for one in asked["classes"]]
            expect(set(classes) <= set(range(len(found))), "classes", "indices of classes", classes)
            yield {"probabilities": [_known(float(found[one])) for one in classes],
                   "top": self._likeliest(edited)[:1]}, b""  # fmt: skip

    def _curves(self, asked: Asked, body: bytes, user: str, gone: Any) -> Iterator[Message]:
        """Of the map that is shown; and the blurred image."""
        x, target = self._image(asked["image"]).x, int(asked["target"])
        maps = torch.from_numpy(_array(body, np.float32, x.shape)).to(x.device)
        size = max(1, round(min(x.shape[-2:]) / 56))
        with self.turns.turn(user, gone) as between:
            score = Score(self.network.model.module, kind="probability", check=False)
            bound = replace(score.bind(x, target), meter=between)
            found: dict[str, Any] = {}
            for name, curve, by in (
                ("deletion", deletion_curve, MEAN), ("insertion", insertion_curve, BLUR),
            ):  # fmt: skip
                how = Replacement(size=size, replacement=by, draws=1)
                values = curve(bound, maps, self.network.space, steps=STEPS, how=how)
                found[name] = list(map(_known, values[0].tolist()))
                found[f"{name} area"] = _known(float(area(values)))
        yield {**found, "size": size}, b""

    def _arrays(self, asked: Asked, body: bytes, user: str, gone: Any) -> Iterator[Message]:
        """The shown map, and what it was made of, as an npz file."""
        image = self._image(asked["state"]["image"])
        names = [choose("arrays", one, ("map", "gradient", "z")) for one in asked["arrays"]]
        values = _array(body, np.float32, (len(names), *image.x.shape[1:]))
        file = io.BytesIO()
        arrays = dict(zip(names, values, strict=True))
        text = json.dumps({"model": self.network.model.name, **asked["state"]})
        np.savez(file, input=image.x[0].cpu().numpy(), state=np.array(text), **arrays)
        yield {}, file.getvalue()

    def _decoded(self, body: bytes, name: str) -> _Image:
        """Errors: ValueError for what is no image, or too large."""
        expect(
            len(body) <= UPLOAD_LIMIT, shown(name), f"at most {UPLOAD_LIMIT >> 20} MiB", len(body)
        )
        with parsing(shown(name), "an image that can be read"):
            with open_image(io.BytesIO(body)) as opened:
                pixels = opened.width * opened.height
            expect(pixels <= UPLOAD_PIXELS, "its size", f"at most {UPLOAD_PIXELS} pixels", pixels)
        x = self.network.model.preprocess(decode_image(io.BytesIO(body), shown(name)))
        return _Image(name=name, x=self.network.tried(x), options={"IMAGE": [name]})

    def _keep(self, key: str, image: _Image) -> _Image:
        self._images[key] = image
        self._images.move_to_end(key)
        while len(self._images) > KEPT:
            self._images.popitem(last=False)
        return image

    def _image(self, key: str) -> _Image:
        """Errors: ValueError for one that is not known, any more, or cannot be read."""
        known = self._images.get(str(key))
        if known is not None:
            return self._keep(key, known)
        chosen = [] if self.inputs is None else self.inputs.chosen
        if self.inputs is None or not key.isdecimal() or int(key) >= len(chosen):
            raise ValueError("the image is not known here any more: open it again")
        one = chosen[int(key)]
        x = self.network.tried(self.inputs.input(one, self.network))
        source = self.inputs.plan.source
        paths = getattr(self.inputs.data, "paths", {})
        options = {"IMAGE": [str(paths.get(one.item.name, one.item.name))]} if source is None else {
            "--data": source, "--indices": f"{one.index}"
        }  # fmt: skip
        return self._keep(key, _Image(name=one.item.name, x=x, options=options))

    def _probabilities(self, x: Tensor) -> Tensor:
        found = self.network.probabilities(x)
        return torch.empty(0) if found is None else found[0]

    def _likeliest(self, x: Tensor) -> list[dict[str, Any]]:
        found = self._probabilities(x)
        values, classes = found.topk(min(CLASSES, len(found)))
        return [
            {
                "class": index,
                "label": shown(self.network.label(index)),
                "probability": _known(value),
            }
            for index, value in zip(classes.tolist(), values.tolist(), strict=True)
        ]

    def _filled(self, x: Tensor, how: str) -> Tensor:
        """What replaces the pixels of an input."""
        bound = Score(self.network.model.module, check=False).bind(x, 0)
        rule, source = Replacement(replacement=how), np.random.default_rng(0)
        places = Places(bound, 1)
        flat = replacement(rule, bound.origin[0], bound, self.network.space, places, source)
        return flat.reshape(x.shape).to(x)


_ACTIONS: Mapping[str, Callable[..., Iterator[Message]]] = {
    "info": Explorer._info, "open": Explorer._open, "explain": Explorer._explain,
    "edit": Explorer._edit, "curves": Explorer._curves, "arrays": Explorer._arrays,
}  # fmt: skip


def explorer_of(network: Network, inputs: Inputs | None, *plans: Any) -> Explorer:
    """plans: of the network, whose options the commands to copy need."""
    options = {name: text for plan in plans for name, text in given_options(plan).items()}
    return Explorer(network=network, inputs=inputs, options=options)


def _known(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _array(body: bytes, dtype: Any, shape: tuple[int, ...]) -> Any:
    """Errors: ValueError for another number of bytes, and for what is not finite."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    expect(len(body) == size, "the array", f"{size} bytes for {list(shape)}", len(body))
    return np.frombuffer(body, dtype).reshape(shape).copy()
