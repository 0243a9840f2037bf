"""Weights files: all usual kinds are read, code in them is never run, misfits are listed."""

import os
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from moreaugrad.models.weights import load_weights, read_weights


def network(width=4):
    return nn.Sequential(nn.Conv2d(3, width, 3), nn.BatchNorm2d(width), nn.Flatten())


def fresh():
    return network().state_dict()


@pytest.fixture
def state():
    return {key: torch.rand_like(value.float()).to(value.dtype) for key, value in fresh().items()}


def filled(path):
    module = network()
    load_weights(module, path, "net")
    return module.state_dict()


def same(found, state):
    return found.keys() == state.keys() and all(torch.equal(found[k], state[k]) for k in state)


def test_safetensors_are_read_whatever_their_name(state, tmp_path):
    save_file(state, tmp_path / "a.bin")
    assert same(filled(tmp_path / "a.bin"), state)


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"state_dict": state, "epoch": 3, "best": 0.9},
        lambda state: {"model": {"state_dict": state}},
        lambda state: {"net": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {f"_orig_mod.module.{key}": value for key, value in state.items()},
    ],
    ids=["plain", "state_dict", "nested", "DataParallel", "compiled"],
)
@pytest.mark.parametrize("legacy", [False, True])
def test_checkpoints_are_read(state, wrap, legacy, tmp_path):
    path = tmp_path / "a.pth"
    torch.save(wrap(state), path, _use_new_zipfile_serialization=not legacy)
    assert same(filled(path), state)


def test_old_checkpoints_without_the_batch_counter_fit(state, tmp_path):
    del state["1.num_batches_tracked"]
    save_file(state, tmp_path / "a.safetensors")
    assert torch.equal(filled(tmp_path / "a.safetensors")["1.running_var"], state["1.running_var"])


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


REFUSED = {
    "zip": r"refused, because the file asks for code to be run \(\w+.mkdir\)",
    "legacy": r"refused, because the file asks for code to be run \(\w+.mkdir\)",
    "pickle": "a plain pickle is refused, because it may hold code",
}


@pytest.mark.parametrize("how", REFUSED)
def test_a_pickle_with_code_is_refused_and_not_run(state, how, tmp_path):
    path, target = tmp_path / "a.pt", tmp_path / "owned"
    content = {"state_dict": state, "extra": Malicious(target)}
    if how == "pickle":
        path.write_bytes(pickle.dumps(content["extra"]))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=how == "zip")
    with pytest.raises(ValueError, match=REFUSED[how]):
        read_weights(path)
    assert not target.exists()


def test_a_whole_pickled_model_is_refused_with_advice(tmp_path):
    torch.save(network(), tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"refused.*torch.nn.*save model.state_dict\(\)"):
        read_weights(tmp_path / "a.pt")


def test_weights_of_another_architecture_are_listed(tmp_path):
    other = network(5).state_dict()
    other["head.weight"] = other.pop("1.bias")
    save_file(other, tmp_path / "a.safetensors")
    module = network()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    with pytest.raises(ValueError, match="do not fit net") as caught:
        load_weights(module, tmp_path / "a.safetensors", "net")
    text = str(caught.value)
    assert "1 missing: 1.bias;" in text
    assert "1 unexpected: head.weight;" in text
    assert "0.weight (expected (4, 3, 3, 3), got (5, 3, 3, 3))" in text
    assert "5 of another shape" in text
    assert "and 1 more" in text
    assert "\n" not in text
    assert same(module.state_dict(), before)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (b"hello, this is text", "expected weights as safetensors"),
        (b"PK\x03\x04 but not a zip", "damaged or of another kind"),
        (b"\xff" * 7 + b"\x7f{", "a whole safetensors file"),
    ],
)
def test_what_are_no_weights_is_refused(content, reason, tmp_path):
    path = tmp_path / "a.pth"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=reason):
        read_weights(path)


def test_truncated_files_are_refused(state, tmp_path):
    save_file(state, tmp_path / "a.safetensors")
    torch.save(state, tmp_path / "b.pth")
    for name in ("a.safetensors", "b.pth"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) - 100])
        with pytest.raises(ValueError, match=name):
            read_weights(tmp_path / name)


def test_checkpoints_without_weights_are_refused(tmp_path):
    torch.save({"epoch": 3, "lr": 0.1}, tmp_path / "a.pth")
    with pytest.raises(ValueError, match="got a dictionary with epoch, lr"):
        read_weights(tmp_path / "a.pth")
    torch.save([torch.zeros(3)], tmp_path / "b.pth")
    with pytest.raises(ValueError, match="got a list"):
        read_weights(tmp_path / "b.pth")
    with pytest.raises(ValueError, match="there is no such file"):
        read_weights(tmp_path / "c.pth")


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.int32, torch.int64, torch.bool])
@pytest.mark.parametrize("save", [save_file, torch.save])
def test_integers_are_no_weights(state, tmp_path, dtype, save):
    """Weights saved as integers were cut, mostly to zero."""
    save({key: value.to(dtype) for key, value in state.items()}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"6 of another type: 0\.weight .*float32, got torch"):
        filled(tmp_path / "a.pt")


def test_fractions_are_not_cut_to_integers(tmp_path):
    module = nn.Module()
    module.register_buffer("steps", torch.zeros(2, dtype=torch.int64))
    save_file({"steps": torch.tensor([0.4, 0.9])}, tmp_path / "a.pt")
    with pytest.raises(ValueError, match=r"another type: steps .*int64, got torch.float32"):
        load_weights(module, tmp_path / "a.pt", "net")
    save_file({"steps": torch.tensor([4, 9], dtype=torch.int32)}, tmp_path / "a.pt")
    load_weights(module, tmp_path / "a.pt", "net")
    assert module.steps.tolist() == [4, 9]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_real_weights_of_any_precision_fit(state, tmp_path, dtype):
    narrow = {k: v.to(dtype) if v.is_floating_point() else v for k, v in state.items()}
    save_file(narrow, tmp_path / "a.pt")
    found = filled(tmp_path / "a.pt")
    assert all(torch.equal(found[key], narrow[key].to(found[key])) for key in state)
