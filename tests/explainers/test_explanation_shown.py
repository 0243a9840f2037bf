"""What a terminal and a notebook show of an explanation, and what labels cannot do to them."""

import re
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import moreaugrad as mg
import toys
from moreaugrad.explainers.display import SHOWN
from moreaugrad.explainers.summary import WIDTH

MODEL = toys.network((5, 8, 3))


def normal(*shape: int) -> Tensor:
    return toys.normal(*shape, seed=3)


CONV = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
SCREEN = 24
NASTY = """<script>alert(1)</script>"'&</style><img src=x onerror=alert(1)>{{ 7 * 7 }}\x1b[31m"""
VECTORS = mg.SmoothGrad(MODEL, samples=8).explain(normal(3, 5))
PHOTOS = mg.SimpleGradient(CONV).explain(normal(20, 3, 8, 8).float())


class Reader(HTMLParser):
    """The elements of a page, and its text without the style."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def read(result: mg.Explanation) -> Reader:
    return Reader(result._repr_html_())


# In a terminal.


@settings(deadline=None, max_examples=50)
@given(rows=st.lists(st.integers(0, 2), max_size=200), label=st.text(max_size=3000))
def test_any_batch_fits_on_a_screen(rows: list[int], label: str) -> None:
    found = VECTORS[rows].with_labels([label] * 3)
    lines = repr(found).split("\n")
    assert len(lines) <= SCREEN
    assert max(map(len, lines)) <= WIDTH
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029]", repr(found))


def test_one_sample_is_described() -> None:
    one = PHOTOS[3].with_labels(["cat", "dog"])
    name, index = ("cat", "dog")[int(one.target)], int(one.target)
    chance = 100 * float(one.probabilities[0, index])
    text = repr(one)
    head = ("1 sample by simple-gradient", "[1, 3, 8, 8] float32, cpu", f"{name} ({index})")
    for words in (*head, f"{chance:.1f} %", "computed directly", "not estimated", "zeros", "time"):
        assert words in text, words


def test_a_target_that_is_not_predicted_is_described_with_the_prediction() -> None:
    other = mg.SimpleGradient(CONV).explain(PHOTOS.inputs[:1], 1 - int(PHOTOS.prediction[0]))
    assert re.search(r"class \d: .* %; prediction class \d: .* %", repr(other))
    assert "prediction class" in read(mg.SimpleGradient(CONV).explain(
        PHOTOS.inputs[:3], 1 - PHOTOS.prediction[:3])).text  # fmt: skip


def test_a_batch_is_counted() -> None:
    short = mg.MoreauGrad(MODEL, max_evaluations=128, tolerance=1e-4).explain(normal(64, 5), 1)
    text = repr(short)
    assert "64 × class 1" in text
    assert "64 budget used" in text
    assert "sample 0: budget used" in text
    assert "61 more: .problems()" in text
    assert re.search(r"error +[\d.]+ % \(.*% to [\d.]+ %\)", text)


# In a notebook.


def test_a_photo_is_shown_with_its_map_and_prediction() -> None:
    one = PHOTOS[0].with_labels(["cat", "dog"])
    page = read(one)
    assert len(page.of("img")) == 2
    assert all(image["src"].startswith("data:image/png;base64,") for image in page.of("img"))
    bars = [bar["style"] for bar in page.of("i")]
    chances = one.probabilities[0].sort(descending=True).values
    assert bars == [f"width: {100 * float(chance):.1f}%" for chance in chances]
    for words in ("cat (0)", "dog (1)", "← explained", "computed directly", "zeros", "time"):
        assert words in page.text, words


def test_a_batch_is_a_grid_with_a_limit() -> None:
    page = read(PHOTOS)
    assert len(page.of("img")) == SHOWN
    assert f"{20 - SHOWN} more samples not shown: result[{SHOWN}:]" in page.text
    assert "not shown" not in read(PHOTOS[:SHOWN]).text
    assert "1 more sample not shown" in read(PHOTOS[: SHOWN + 1]).text
    assert "0 samples" in read(PHOTOS[:0]).text


def test_other_inputs_are_a_table_of_their_largest_entries() -> None:
    one = mg.SmoothGrad(toys.network((40, 3)), samples=8).explain(normal(1, 40))
    places = re.findall(r"\[(\d+)\]", read(one).text)
    assert list(map(int, places)) == one.maps[0].abs().argsort(descending=True)[:10].tolist()
    assert "the largest 10 of 40 entries" in read(one).text
    assert not read(one).of("img")
    two = mg.SimpleGradient(lambda a, b: MODEL(torch.cat([a, b], 1))).explain(
        (normal(1, 2), normal(1, 3)), 1
    )
    assert "input 0" in read(two).text
    assert "input 1" in read(two).text


def test_a_status_is_in_words_with_its_remedy() -> None:
    lost = mg.SimpleGradient(lambda x: (x * 0).sqrt()).explain(normal(1, 3), 1)
    page = read(lost)
    assert "NaN or infinite" in page.text
    assert "check the model" in page.text
    assert "no map to show" in page.text
    assert any("mg-bad" in str(each.get("class")) for each in page.of("p"))
    zero = mg.SimpleGradient(lambda x: x * 0 + torch.arange(3)).explain(normal(1, 3), 1)
    assert "map is zero" in read(zero).text


@pytest.mark.parametrize("result", [PHOTOS, PHOTOS[0], VECTORS, VECTORS[0]])
def test_labels_are_no_markup(result: mg.Explanation) -> None:
    usual = read(result)
    page = result.with_labels([NASTY] * result.probabilities.shape[1])._repr_html_()
    found = Reader(page)
    assert [tag for tag, _ in found.elements] == [tag for tag, _ in usual.elements]
    assert "\x1b" not in page
    assert "alert(1)" in found.text
    assert not {"script", "link", "iframe"} & {tag for tag, _ in found.elements}
    for _, attributes in found.elements:
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("src", "data:").startswith("data:")
    assert "http" not in page.replace("www.w3.org", "")


# Labels that the model has.


def test_a_model_carries_its_labels() -> None:
    loaded = mg.load_model("builtin")
    x = loaded.preprocess(mg.load_image(Path(__file__).parents[2] / "docs/images/cell.png"))[None]
    for module in (loaded.module, mg.optimise(loaded.module, None).model):
        found = mg.SimpleGradient(module).explain(x)
        assert found.label(int(found.target)) == loaded.labels[int(found.target)]

    names = {0: "a", 1: "b", 2: "c"}

    class Face(nn.Module):
        config = SimpleNamespace(id2label=names)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = MODEL(x)
            return out

    assert mg.SimpleGradient(Face().eval()).explain(normal(1, 5)).labels == names


def test_an_attribute_of_another_kind_is_no_labels() -> None:
    own = toys.network((5, 3))
    own.labels = nn.Sequential()
    mg.models.LoadedModel(module=own, preprocess=mg.models.Preprocess(), labels=("a", "b", "c"))
    assert isinstance(own.labels, nn.Sequential)
    assert mg.SimpleGradient(own).explain(normal(1, 5)).labels == {}


@pytest.mark.data
def test_real_photos(data_folder: Path, tmp_path: Path) -> None:
    loaded = mg.load_model(
        "torchvision:squeezenet1_0",
        weights=data_folder / "models" / "squeezenet1_0-imagenet.safetensors",
    )
    files = sorted((data_folder / "imagenet-sample").glob("*.JPEG"))[:2]
    x = torch.stack([loaded.preprocess(mg.load_image(file)) for file in files])
    found = mg.SmoothGrad(loaded.module, samples=4).explain(x)
    assert "tench (0)" in repr(found[0])
    found.save(tmp_path / "photos")
    page = mg.Explanation.load(tmp_path / "photos")._repr_html_()
    assert page == found._repr_html_()
    assert len(page) < 2**18
    assert found[0].to_pandas().loc[0, "label"] == "tench"
