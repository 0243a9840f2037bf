"""Models by name: factories, labels, device, and what is said about a name that is wrong."""

import json
import sys
import textwrap
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from moreaugrad.models import LoadedModel, Preprocess, load_model
from moreaugrad.models.loaded import read_labels

FACTORIES = """
    from torch import nn
    from moreaugrad.models import LoadedModel, Preprocess

    def network():
        return nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
            nn.Flatten(), nn.Linear(4, 5),
        )

    def described():
        return LoadedModel(
            module=network(), preprocess=Preprocess(resize=16, crop=12), labels=tuple("abcde")
        )

    def binary():
        module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 4 * 4, 1))
        return LoadedModel(module=module, preprocess=Preprocess(resize=4, crop=4))

    def needs_more(width):
        return network()

    def wrong():
        return "a model"

    value = 3
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A working folder with a module of factories; its name is new for each test."""
    name = f"factories_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(FACTORIES))
    (tmp_path / f"{name}_broken.py").write_text("import no_such_package_at_all\n")
    monkeypatch.chdir(tmp_path)
    return name


def test_a_factory_of_the_working_folder_brings_its_own_description(project, untouched_generators):
    with untouched_generators():
        model = load_model(f"{project}:described")
    assert isinstance(model, LoadedModel)
    assert model.preprocess == Preprocess(resize=16, crop=12)
    assert model.labels == ("a", "b", "c", "d", "e")
    assert model.name == f"{project}:described"
    assert not any(module.training for module in model.module.modules())
    assert not any(parameter.requires_grad for parameter in model.module.parameters())


def test_a_bare_module_is_loaded_with_a_warning_about_its_preprocessing(project):
    with pytest.warns(UserWarning, match="does not say how images are preprocessed"):
        model = load_model(f"{project}:network")
    assert model.preprocess == Preprocess()
    given = Preprocess(resize=20, crop=20)
    assert load_model(f"{project}:network", preprocess=given).preprocess == given


def test_a_given_preprocessing_changes_what_it_names_alone(project):
    own = load_model("builtin").preprocess
    found = load_model("builtin", preprocess={"resize": 48, "crop": 40}).preprocess
    assert found == replace(own, resize=48, crop=40)
    assert found.mean == own.mean != Preprocess().mean
    grey = {"mean": (0.5,)}
    with pytest.raises(ValueError, match="three numbers each"):
        load_model("builtin", preprocess=grey)


def test_weights_fill_the_module_exactly(project, tmp_path):
    module = load_model(f"{project}:described").module
    state = {key: torch.full_like(value, 2) for key, value in module.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    loaded = load_model(f"{project}:described", weights=tmp_path / "w.safetensors").module
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, state[key])
    del state["5.bias"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"do not fit factories_\d+:described.*missing: 5.bias"):
        load_model(f"{project}:described", weights=tmp_path / "w.safetensors")


def test_dtype_and_device_are_followed(project):
    module = load_model(f"{project}:described", dtype=torch.float64, device="cpu").module
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float64}
    with pytest.raises(ValueError, match="dtype: expected a floating-point type"):
        load_model(f"{project}:described", dtype=torch.int64)
    with pytest.raises(ValueError, match="device: 'gpu' cannot be used"):
        load_model(f"{project}:described", device="gpu")


@pytest.mark.parametrize(
    ("text", "suffix"),
    [
        ("v\nw\nx x\ny\nz\n\n", "txt"),
        ("\ufeffv\r\nw\r\nx x\r\ny\r\nz", "txt"),
        (json.dumps(["v", "w", "x x", "y", "z"]), "json"),
        (json.dumps({"4": "z", "0": "v", "1": "w", "2": "x x", "3": "y"}), "json"),
        (json.dumps([["n0", "v"], ["n1", "w"], ["n2", "x x"], ["n3", "y"], ["n4", "z"]]), "json"),
    ],
)
def test_labels_files(project, tmp_path, text, suffix):
    path = tmp_path / f"labels.{suffix}"
    path.write_bytes(text.encode())
    model = load_model(f"{project}:described", labels=path)
    assert model.labels == ("v", "w", "x x", "y", "z")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a\nb\n", "expected a label for each of the 5 outputs of .*:described, got 2"),
        ("", "the file is empty"),
        ('["a", "b"', "expected a JSON list of names"),
        ('{"0": "a", "2": "b"}', "expected a JSON list of names, or an object from the indices"),
        ('{"a": "b"}', "expected a JSON list of names"),
        (r'["a", "b", "c", "d", "\ud800"]', "labels that can be written in UTF-8"),
        (b"\xff\xfe\x00", "expected labels as text in UTF-8"),
    ],
)
def test_bad_labels_are_refused(project, tmp_path, text, reason):
    path = tmp_path / "labels.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ValueError, match=reason):
        load_model(f"{project}:described", labels=path)


ENDS = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\x1d", "\x1e"]
BREAKS = ["\n", "\r", "\r\n", *ENDS]


@pytest.mark.parametrize("end", ENDS)
def test_a_name_a_line_may_hold_other_ends_of_lines(tmp_path, end):
    path = tmp_path / "labels.txt"
    path.write_bytes(f"a{end}b\r\n c\t\n{end}d{end}\n\n".encode())
    assert read_labels(path) == (f"a{end}b", "c", f"{end}d{end}")


@pytest.mark.parametrize("end", BREAKS)
def test_labels_as_json_are_any_text(tmp_path, end):
    labels = [f"a{end}b", f" {end}", "[x]", "{", "", '"', "e\u0301"]
    (tmp_path / "labels.json").write_text(json.dumps(labels), encoding="utf-8")
    assert read_labels(tmp_path / "labels.json") == tuple(labels)


def test_labels_that_cannot_be_written_are_refused(project, tmp_path):
    (tmp_path / "labels.json").write_text('["a", "b", "\\ud800", "d", "e"]')
    with pytest.raises(ValueError, match=r"labels\.json: expected labels .* UTF-8, got .ud800"):
        load_model(f"{project}:described", labels=tmp_path / "labels.json")


def test_a_single_output_may_have_two_labels(project, tmp_path):
    path = tmp_path / "labels.txt"
    path.write_text("benign\nmalignant\n")
    assert load_model(f"{project}:binary", labels=path).labels == ("benign", "malignant")
    path.write_text("a\nb\nc\n")
    with pytest.raises(ValueError, match="each of the 1 outputs"):
        load_model(f"{project}:binary", labels=path)


def test_missing_labels_and_weights_are_refused(project, tmp_path):
    for name in ("labels", "weights"):
        with pytest.raises(ValueError, match=r"none\.x: expected .* there is no such"):
            load_model(f"{project}:described", **{name: tmp_path / "none.x"})


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bultin", "expected builtin, builtin-elastic-net, torchvision:NAME, .* got 'bultin'; did"),
        ("bultin", "did you mean 'builtin'"),
        ("builtin-elastic", "did you mean 'builtin-elastic-net'"),
        ("resnet50", "got 'resnet50'; did you mean 'torchvision:resnet50'"),
        ("", "expected builtin"),
        ("torchvision:", "expected builtin"),
        (":thing", "expected builtin"),
        ("torchvison:resnet50", "no module 'torchvison' .*; did you mean 'torchvision'"),
    ],
)
def test_wrong_names_get_the_nearest_suggested(name, reason):
    with pytest.raises(ValueError, match=reason):
        load_model(name)


def test_wrong_factories_are_explained(project):
    for name, error, reason in (
        (f"{project}:describd", ValueError, "none of that name; did you mean 'described'"),
        (f"{project}:value", ValueError, "expected a function .* got int"),
        (f"{project}:needs_more", ValueError, "calling it failed .*needs_more.*width"),
        (f"{project}:wrong", TypeError, "expected it to return a torch.nn.Module .* got str"),
        (f"{project}_broken:network", ValueError, "importing .* failed .*no_such_package_at_all"),
    ):
        with pytest.raises(error, match=reason):
            load_model(name)


def test_the_search_path_is_left_as_it_was(project):
    before = list(sys.path)
    load_model(f"{project}:described")
    assert sys.path == before


def test_modules_without_parameters_are_models_too(project, tmp_path):
    (tmp_path / f"{project}_flat.py").write_text(
        "from torch import nn\nfrom moreaugrad.models import LoadedModel, Preprocess\n"
        "def flat():\n    return LoadedModel(module=nn.Flatten(), labels=('a',) * 12,\n"
        "                       preprocess=Preprocess(resize=2, crop=2))\n"
    )
    model = load_model(f"{project}_flat:flat")
    assert isinstance(model.module, nn.Flatten)
    assert model.labels is not None
    assert len(model.labels) == 12
