"""Models of transformers: classifiers of images, and language models with their tokenizers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL.Image import Resampling
from torch import nn

from moreaugrad.data.images import Size
from moreaugrad.models.loaded import LoadedModel, Preprocess
from moreaugrad.models.packages import fetching, import_extra
from moreaugrad.registry import first_line, import_code

NO_CODE = {"trust_remote_code": False}
"""Otherwise transformers asks on the terminal whether to run code that it finds next to weights."""

TEXT_HEADS = {
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForTokenClassification": "AutoModelForTokenClassification",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
    "ForMaskedLM": "AutoModelForMaskedLM",
}
"""How the names of architectures of language models end, and what loads them."""


def from_huggingface(name: str, pretrained: bool, classes: int | None) -> LoadedModel:
    transformers = import_extra("transformers", "hf")
    for file in Path(name).glob("*"):
        if not (file.is_file() or file.is_dir()):
            raise ValueError(f"hf:{name}: expected a folder of files, but {file.name} is none")
    with fetching(f"hf:{name}"):
        config = transformers.AutoConfig.from_pretrained(name, **NO_CODE)
    images = type(config) in transformers.AutoModelForImageClassification._model_mapping
    automatic = transformers.AutoModelForImageClassification
    if not images:
        automatic = getattr(transformers, _text_head(name, config))
    preprocess = Preprocess()
    with fetching(f"hf:{name}"):
        if images:
            settings = transformers.AutoImageProcessor.from_pretrained(name, **NO_CODE).to_dict()
            preprocess = as_preprocess(settings)
        if pretrained:
            module, found = automatic.from_pretrained(name, output_loading_info=True, **NO_CODE)
        else:
            changed = {} if classes is None else {"num_labels": classes}
            config = transformers.AutoConfig.from_pretrained(name, **changed, **NO_CODE)
            module, found = automatic.from_config(config, **NO_CODE), {}
    if found.get("missing_keys"):
        raise ValueError(
            f"hf:{name}: its weights are not those of a finished classifier; without "
            f"{', '.join(sorted(found['missing_keys'])[:4])} its outputs would be random"
        )
    labels = None
    if classes is None and images:
        labels = tuple(module.config.id2label[index] for index in range(module.config.num_labels))
    return LoadedModel(module=module, preprocess=preprocess, labels=labels)


def _text_head(name: str, config: Any) -> str:
    """What loads a language model. Errors: ValueError for another model."""
    named = getattr(config, "architectures", None) or [type(config).__name__]
    found = [kind for end, kind in TEXT_HEADS.items() if named[0].endswith(end)]
    if not found:
        raise ValueError(
            f"hf:{name}: expected a classifier of images, texts or tokens, or a language model, "
            f"got {', '.join(named)}"
        )
    return found[0]


def reads_ids(module: nn.Module) -> bool:
    """Whether it is a language model of transformers."""
    return getattr(module, "main_input_name", "") == "input_ids"


def load_tokenizer(name: str) -> Any:
    """A tokenizer of transformers by its folder or name, or `package.module:function`, from a text
    to its ids. Errors: ValueError for one that cannot be loaded."""
    scheme, _, rest = name.partition(":")
    if rest and scheme != "hf":
        return import_code(name, "a function from a text to its token ids")
    transformers = import_extra("transformers", "hf")
    try:
        return transformers.AutoTokenizer.from_pretrained(rest or name, **NO_CODE)
    except Exception as error:  # damaged files raise errors of many libraries
        raise ValueError(
            f"tokenizer: {rest or name} holds none that can be loaded ({first_line(error)}): give "
            "the folder of one (--tokenizer)"
        ) from error


def as_preprocess(settings: Mapping[str, Any]) -> Preprocess:
    """An image processor of transformers, in its dictionary form, as a Preprocess.

    The processor rescales bytes p to r p + o, then normalises with its mean and std. This equals
    (p / 255 - m) / s with s = std / (255 r) and m = (mean - o) / (255 r).
    Errors: ValueError for a size that Preprocess cannot express.
    """
    resize = _processor_size(settings.get("size")) if settings.get("do_resize") else None
    crop = _processor_size(settings.get("crop_size")) if settings.get("do_center_crop") else None
    percent = settings.get("crop_pct")
    if percent and isinstance(resize, int):
        # ConvNeXt's rule: small images are cropped, large ones are resized to a square.
        crop = (resize, resize)
        resize = int(resize / percent) if resize < 384 else crop
    scale = 255 * settings.get("rescale_factor", 1 / 255) if settings.get("do_rescale") else 255.0
    offset = 1.0 if settings.get("do_rescale") and settings.get("rescale_offset") else 0.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if settings.get("do_normalize"):
        mean, std = tuple(settings["image_mean"]), tuple(settings["image_std"])
    if settings.get("include_top"):  # EfficientNet divides a second time
        std = tuple(a * b for a, b in zip(std, settings["image_std"], strict=True))
    return Preprocess(
        resize=resize,
        crop=crop,
        mean=tuple((value + offset) / scale for value in mean),
        std=tuple(value / scale for value in std),
        interpolation=Resampling(settings.get("resample", Resampling.BILINEAR)).name.lower(),
    )


def _processor_size(size: object) -> Size | None:
    if size is None or isinstance(size, int):
        return size
    if isinstance(size, Mapping):
        if size.get("height") and size.get("width"):
            return (int(size["height"]), int(size["width"]))
        if size.get("shortest_edge"):
            return int(size["shortest_edge"])
    raise ValueError(
        f"expected an image processor with a height and width or a shortest edge, got {size!r}; "
        "give preprocess="
    )
