"""What the explorer answers, whatever the shell: maps, probabilities, curves, refusals."""

import io
import json
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import moreaugrad as mg
from explored import CELL, frames
from moreaugrad.explorer import core
from moreaugrad.explorer.core import Explorer
from moreaugrad.explorer.turns import Gone, Turn, Turns
from moreaugrad.penalties import L1, GroupL2
from moreaugrad.runs.inputs import Inputs
from moreaugrad.runs.network import Network
from moreaugrad.runs.plans.common import DataPlan

STATE = {"do": "explain", "image": "0"}


def one(explorer: Explorer, asked: Any, body: bytes = b"") -> tuple[dict[str, Any], bytes]:
    (found,) = explorer.answer(asked, body)
    return found


def opened(explorer: Explorer) -> torch.Tensor:
    return explorer.network.model.preprocess(mg.load_image(CELL))[None]


def test_it_says_what_there_is(explorer: Explorer) -> None:
    info, _ = one(explorer, {"do": "info"})
    assert info["images"] == [{"id": "0", "name": "cell.png"}]
    assert info["labels"][0] == "plain cell"
    assert "rho" in info["methods"]["sparse-moreaugrad"]["settings"]
    assert not set(core.LEFT_OUT) & set(info["methods"])
    json.dumps(info, allow_nan=False)


def test_an_image_has_its_prediction_and_its_pixels(explorer: Explorer) -> None:
    found, png = one(explorer, {"do": "open", "image": "0"})
    expected = explorer.network.probabilities(opened(explorer))
    assert found["probabilities"] == pytest.approx(expected[0].tolist())
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png)).convert("RGB")),
                          np.asarray(mg.load_image(CELL)))  # fmt: skip


@pytest.mark.parametrize(("settings", "penalty"), [
    ({"method": "sparse-moreaugrad", "sparsity": 0.95, "rho": 0.5, "seed": 3}, L1),
    ({"method": "sparse-moreaugrad", "eta": 0.05, "sigma": 0.1}, L1),
    ({"method": "sparse-moreaugrad", "sigma": 0.0}, L1),
    ({"method": "group-sparse-moreaugrad"}, lambda eta: GroupL2(eta, size=4)),
])  # fmt: skip
def test_the_last_frame_is_the_map_of_the_method(
    explorer: Explorer, settings: dict[str, Any], penalty: Callable[[float], Any]
) -> None:
    recipes, found = frames(
        explorer.answer({**STATE, **settings, "target": 2, "eta": None} | settings)
    )
    assert [frame.header["done"] for frame in found] == [False] * (len(found) - 1) + [True]
    own = {k: v for k, v in settings.items() if k != "method"}
    expected = mg.build(settings["method"], explorer.network.model.module, **own).explain(
        opened(explorer), 2
    )
    last = found[-1]
    maps = penalty(last.header["eta"]).prox(
        torch.from_numpy(last.arrays["gradient"].copy())[None], 1.0
    )
    assert (maps - expected.maps).norm() <= 1e-3 * expected.maps.norm()
    assert last.header["evaluations"] == int(expected.evaluations)
    assert recipes["threshold"]["kind"] in ("soft", "group")


def test_methods_without_a_threshold_send_their_map(explorer: Explorer) -> None:
    recipes, found = frames(explorer.answer({**STATE, "method": "smoothgrad"}))
    expected = mg.SmoothGrad(explorer.network.model.module, sigma=0.1).explain(opened(explorer))
    assert recipes["threshold"] == {"kind": "keep"}
    assert np.array_equal(found[-1].arrays["gradient"], expected.maps[0].numpy())
    assert np.array_equal(found[-1].arrays["z"], expected.z_scores[0].numpy(), equal_nan=True)


@pytest.mark.parametrize("method", ["deeplift", "grad-cam", "integrated-gradients", "caso"])
def test_every_kind_of_method_has_a_frame(explorer: Explorer, method: str) -> None:
    _, found = frames(explorer.answer({**STATE, "method": method}))
    assert found[-1].header["done"]


def test_one_class_against_another(explorer: Explorer) -> None:
    asked = {**STATE, "method": "simple-gradient", "target": 1}
    _, (both,) = frames(explorer.answer({**asked, "against": 4}))
    single = [frames(explorer.answer({**asked, "target": k}))[1][0] for k in (1, 4)]
    difference = single[0].arrays["gradient"] - single[1].arrays["gradient"]
    assert np.allclose(both.arrays["gradient"], difference, atol=1e-5)


@pytest.fixture
def recipes(explorer: Explorer) -> Any:
    asked = {**STATE, "target": 3, "against": 1, "sparsity": 0.8, "rho": 0.7, "quality": "preview"}
    return frames(explorer.answer(asked))


def test_five_lines_of_python_give_the_map(recipes: Any) -> None:
    texts, found = recipes
    space: dict[str, Any] = {}
    assert texts["python"].count("\n") == 5
    exec(texts["python"], space)
    maps, last = space["result"].maps, found[-1]
    expected = L1(last.header["eta"]).prox(torch.from_numpy(last.arrays["gradient"].copy()), 1.0)
    assert torch.allclose(maps[0], expected, atol=1e-6)
    assert int(space["result"].target) == 3


@pytest.mark.parametrize("form", ["command", "toml"])
def test_the_command_and_the_file_give_the_map(
    recipes: Any, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shlex

    from moreaugrad.cli.entry import run
    from moreaugrad.reports.reading import MapsFolder

    texts, found = recipes
    words = shlex.split(texts["command"])
    if form == "toml":  # its paths are relative to the folder in which the server was started
        file = Path("explored-by-a-test.toml")
        file.write_text(texts["toml"])
        words = ["moreaugrad", "explain", "--config", str(file), "--out", "maps"]
    else:
        file = tmp_path / "none"
    try:
        assert run([*words[1:-1], str(tmp_path / "maps")]) == 0
    finally:
        file.unlink(missing_ok=True)
    folder = MapsFolder.read(tmp_path / "maps")
    last = found[-1]
    expected = L1(last.header["eta"]).prox(torch.from_numpy(last.arrays["gradient"].copy()), 1.0)
    maps = folder.map(folder.records[0])
    assert (maps - expected).norm() <= 1e-4 * expected.norm()


def test_a_replaced_region_changes_the_probabilities(explorer: Explorer) -> None:
    asked = {"do": "edit", "image": "0", "how": "mean"}
    mask, x = np.zeros((64, 64), np.uint8), opened(explorer)
    for _ in range(2):
        found, _ = one(explorer, asked, mask.tobytes())
        expected = explorer.network.probabilities(x)
        assert found["probabilities"] == pytest.approx(expected[0].tolist())
        mask[8:40, 8:40] = 1
        x[..., 8:40, 8:40] = 0  # the mean of the input space


def test_the_curves_are_those_of_the_metrics(explorer: Explorer) -> None:
    x = opened(explorer)
    maps = mg.SimpleGradient(explorer.network.model.module).attribute(x, 2)
    asked = {"do": "curves", "image": "0", "target": 2}
    found, _ = one(explorer, asked, maps.numpy().tobytes())
    bound = mg.Score(explorer.network.model.module).bind(x, 2)
    how = mg.metrics.Replacement(size=4, replacement="mean", draws=1)
    values = mg.metrics.deletion_curve(bound, maps, explorer.network.space, steps=24, how=how)
    assert found["deletion"] == pytest.approx(values[0].tolist())
    assert found["insertion"][-1] == pytest.approx(found["deletion"][0])


@pytest.mark.parametrize("budget", [0, 4])
def test_an_attack_keeps_the_class_within_its_budget(explorer: Explorer, budget: int) -> None:
    asked = {"do": "attack", "image": "0", "target": 2, "budget": budget}
    found, png = one(explorer, asked)
    preprocess, module = explorer.network.model.preprocess, explorer.network.model.module
    clean, changed = opened(explorer), explorer._image(found["image"]).x
    pixels = [preprocess.pixels(x[0]) for x in (clean, changed)]
    assert float((pixels[0] - pixels[1]).abs().max()) <= budget / 255 + 1e-6
    assert pixels[1].min() >= 0
    assert pixels[1].max() <= 1
    shown = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")) / 255.0
    assert np.abs(shown - pixels[1].numpy()).max() <= 0.51 / 255
    assert int(module(changed).argmax()) == int(module(clean).argmax())
    before, after = (mg.SimpleGradient(module).explain(x, 2).maps.abs().flatten()
                     for x in (clean, changed))  # fmt: skip
    largest = before.topk(round(0.1 * before.numel())).indices
    fall = (after[largest].sum() / after.sum()) / (before[largest].sum() / before.sum())
    assert (fall < 0.8) if budget else torch.equal(clean, changed)
    assert one(explorer, asked)[0] == found


def test_arrays_are_kept_with_their_state(explorer: Explorer) -> None:
    values = np.arange(2 * 3 * 64 * 64, dtype=np.float32)
    state = {"image": "0", "method": "cafo", "target": None}
    asked = {"do": "arrays", "arrays": ["map", "z"], "state": state}
    _, file = one(explorer, asked, values.tobytes())
    found = np.load(io.BytesIO(file))
    assert np.array_equal(found["z"], values[3 * 64 * 64 :].reshape(3, 64, 64))
    assert json.loads(str(found["state"]))["method"] == "cafo"
    assert np.array_equal(found["input"], opened(explorer)[0].numpy())


def png_of(width: int, height: int) -> bytes:
    """The header of a PNG that says it is that large."""
    header = width.to_bytes(4, "big") + height.to_bytes(4, "big") + b"\x08\x02\x00\x00\x00"
    chunk = b"IHDR" + header
    checked = len(header).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + checked


@pytest.mark.parametrize("body", [
    b"not an image", b"\x89PNG\r\n\x1a\n", CELL.read_bytes()[:200], png_of(60_000, 60_000),
    b"%!PS-Adobe-3.0\n", b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"II*\0\xff\xff\xff\xff",
    b"PK\x03\x04" + bytes(100), bytes(core.UPLOAD_BYTES + 1),
])  # fmt: skip
def test_what_is_no_image_is_refused(explorer: Explorer, body: bytes) -> None:
    found, _ = one(explorer, {"do": "open", "name": "a\x1b[31m.png"}, body)
    assert "expected" in found["refused"]
    assert "\x1b" not in found["refused"]
    assert not explorer._images


@pytest.mark.parametrize("asked", [
    None, [], 7, {}, {"do": "_image"}, {"do": "answer"}, {"do": "open"},
    {"do": "open", "image": "1"}, {"do": "open", "image": "../cell.png"},
    {"do": "explain", "image": "0", "method": "rm"}, {"do": "explain", "image": "0", "rho": "1"},
    {"do": "explain", "image": "0", "rho": -1}, {"do": "explain", "image": "0", "target": 99},
    {"do": "explain", "image": "0", "sigma": float("nan")}, {"do": "explain"},
    {"do": "explain", "image": "0", "against": 99}, {"do": "explain", "image": "0", "seed": -1},
    {"do": "edit", "image": "0"}, {"do": "edit", "image": "0", "how": "mean"},
    {"do": "curves", "image": "0", "target": 0}, {"do": "curves", "image": "0", "target": "x"},
    {"do": "arrays", "arrays": ["map"], "state": {"image": "0"}},
])  # fmt: skip
def test_nonsense_is_refused(explorer: Explorer, asked: Any) -> None:
    *_, (last, _) = explorer.answer(asked)
    assert last["refused"]
    assert one(explorer, {"do": "info"})[0]["model"] == "builtin"  # the device is free


def test_images_that_were_used_longest_ago_are_forgotten(
    explorer: Explorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "KEPT", 2)
    keys = []
    for grey in (10, 20, 30):
        file = io.BytesIO()
        Image.new("RGB", (64, 64), (grey,) * 3).save(file, "PNG")
        keys.append(one(explorer, {"do": "open", "name": "g.png"}, file.getvalue())[0]["image"])
    assert "open it again" in one(explorer, {"do": "open", "image": keys[0]})[0]["refused"]
    assert one(explorer, {"do": "open", "image": keys[2]})[0]["image"] == keys[2]


def test_another_user_may_open_an_image_at_any_moment(
    network: Network, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(core, "KEPT", 1)
    Image.new("RGB", (64, 64)).save(tmp_path / "black.png")
    inputs = Inputs.open(DataPlan(files=(str(CELL), str(tmp_path / "black.png"))), 0, network)
    explorer = Explorer(network=network, inputs=inputs)
    other = threading.Thread(target=lambda: one(explorer, {"do": "open", "image": "1"}))

    class Images(dict[str, Any]):
        def __delitem__(self, key: str) -> None:
            if not other.ident:  # at this moment another user opens another image
                other.start()
                other.join(0.3)
            super().__delitem__(key)

    explorer._images = Images(forgotten=None)
    first, _ = next(explorer.answer(STATE))
    other.join()
    assert "refused" not in first


def test_nothing_is_written(
    explorer: Explorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    one(explorer, {"do": "open", "name": "../../escaped.png"}, CELL.read_bytes())
    list(explorer.answer(STATE))
    assert not list(tmp_path.iterdir())


def test_a_request_that_is_given_up_ends_with_the_pass(explorer: Explorer) -> None:
    passes, module = [], explorer.network.model.module
    hook = module.register_forward_hook(lambda *_: passes.append(1))
    try:
        asked = {**STATE, "quality": "fine"}
        answers = explorer.answer(asked, gone=lambda: len(passes) >= 12)
        assert not any(header.get("done") for header, _ in answers)
    finally:
        hook.remove()
    assert 12 <= len(passes) <= 13
    assert one(explorer, {"do": "open", "image": "0"})[0]["image"] == "0"


def test_turns_are_shared_by_users_not_by_requests() -> None:
    turns, order, ready = Turns(), list[str](), threading.Barrier(5)

    def work(user: str) -> None:
        ready.wait()
        with Turn(turns, user, lambda: False) as turn:
            for _ in range(20):
                order.append(user)
                time.sleep(0.002)  # a pass
                turn()

    threads = [threading.Thread(target=work, args=(user,)) for user in ("many",) * 4 + ("one",)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(order) == 100
    last = max(i for i, user in enumerate(order) if user == "one")
    assert last < 50, "one user's 20 passes wait for about as many of the other's"


def test_who_has_left_does_not_keep_the_device() -> None:
    turns, left, refused = Turns(), threading.Event(), list[str]()

    def work() -> None:
        with pytest.raises(Gone):
            turns.take("b", left.is_set)
        refused.append("b")

    with Turn(turns, "a", lambda: False):
        waiting = threading.Thread(target=work)
        waiting.start()
        left.set()
        waiting.join(5)
        assert refused == ["b"]
        assert not turns._waiting
    turn = Turn(turns, "a", lambda: len(refused) > 1)
    with suppress(Gone), turn:
        refused.append("a")
        turn()
    assert not turns._busy


def test_the_lines_of_the_explorer() -> None:
    """Python without docstrings, comments and empty lines, and JavaScript likewise."""
    import ast

    total, folder = 0, Path(core.__file__).parent
    for file in folder.rglob("*.*"):
        lines = file.read_text("utf-8").splitlines() if file.suffix in (".py", ".js") else []
        texts = set[int]()
        for node in ast.walk(ast.parse("\n".join(lines))) if file.suffix == ".py" else ():
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                texts |= set(range(node.lineno - 1, (node.end_lineno or 0)))
        total += sum(
            1 for at, line in enumerate(lines)
            if line.strip() and at not in texts
            and not line.strip().startswith(("#", "//", "/**", "*"))
        )  # fmt: skip
    assert total <= 1004
