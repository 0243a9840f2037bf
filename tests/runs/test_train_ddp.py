"""`train --ddp`: the weights of the exact training, up to rounding, with torch's own averages."""

import copy
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed import GradBucket, HashStore, destroy_process_group, init_process_group
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

import tiny_models
from moreaugrad.cli.entry import run
from moreaugrad.penalties import L1
from moreaugrad.runs.processes import Processes
from moreaugrad.runs.train.averaging import _own_gpus, averaged
from moreaugrad.training import Fast, Free, Iterative, Penalised, Protocol
from moreaugrad.training.loop import Piece, Trainer
from processes import ended, run_shared, start
from toys import last


def words(out: Path, *more: str) -> list[str]:
    """Two epochs of batches of eleven, which two processes cannot halve; SGD, because Adam makes
    large steps of the rounding of small gradients."""
    return last(
        ["train", "--data", "cells", "--images", "80", "--size", "16", "--model",
         "tiny_models:helped", "--epochs", "2", "--batch-size", "11", "--optimiser", "sgd", "--lr",
         "0.05", "--protocol", "fast", "--penalty", "l1", "--epsilon", "0.05", "--threads", "1",
         "--device", "cpu", "-q", *more, "--out", str(out)]
    )  # fmt: skip


def network(folder: Path) -> dict[str, Tensor]:
    return load_file(folder / "last.safetensors")


def close(one: Path, other: Path) -> bool:
    a, b = network(one), network(other)
    assert a.keys() == b.keys()
    return all(torch.allclose(a[name], b[name], rtol=1e-4, atol=1e-5) for name in a)


def losses(folder: Path) -> list[float]:
    lines = (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["training"]["loss"] for line in lines]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training by two processes."""
    folder = tmp_path_factory.mktemp("two")
    run_shared(words(folder / "run", "--ddp"), folder / "errors")
    assert (folder / "errors").read_text(encoding="utf-8") == ""
    return folder / "run"


def test_two_processes_end_with_the_weights_of_one(two: Path, tmp_path: Path) -> None:
    """The network has no batch normalisation."""
    one = tmp_path / "one"
    assert run(words(one)) == 0
    assert close(one, two)
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    names = {file.name for file in one.iterdir()}
    assert {file.name for file in two.iterdir()} == names
    assert len(list((two / "events").iterdir())) == len(list((one / "events").iterdir()))


def test_pieces_statistics_and_rounds_are_those_of_the_exact_training(tmp_path: Path) -> None:
    one, several = tmp_path / "one", tmp_path / "several"
    more = ["--model", "tiny_models:normalised", "--shards", "4", "--protocol", "free"]
    more += ["--set", "replays=2"]
    assert run(words(one, *more)) == 0
    run_shared(words(several, *more, "--ddp"), tmp_path / "errors")
    assert close(one, several)
    assert "1.running_var" in network(one)


def test_a_process_that_dies_fails_the_others_and_the_next_start_completes(
    two: Path, tmp_path: Path
) -> None:
    out, errors = tmp_path / "out", tmp_path / "errors"
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    first, second = (
        start(
            words(out, "--ddp"), errors, environment=shared | {"RANK": rank},
            killed_at="state-00000012.safetensors" if rank == "0" else "",
        )
        for rank in "01"
    )  # fmt: skip
    ended(first, errors, -9)
    ended(second, errors, 2)
    message = " ".join(errors.read_text(encoding="utf-8").split())
    assert "another process of this run has stopped" in message
    assert "Traceback" not in message
    assert len((out / "log.jsonl").read_text(encoding="utf-8").splitlines()) == 1
    run_shared(words(out, "--ddp"), errors)
    assert close(two, out)
    assert losses(out) == pytest.approx(losses(two))


def test_one_process_says_that_nothing_is_averaged_and_keeps_the_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plain, one = tmp_path / "plain", tmp_path / "one"
    assert run(words(plain)) == 0
    capsys.readouterr()
    assert run([word for word in words(one, "--ddp") if word != "-q"]) == 0
    assert "ddp: there is one process" in " ".join(capsys.readouterr().err.split())
    assert (one / "last.safetensors").read_bytes() == (plain / "last.safetensors").read_bytes()
    # What a run may be resumed with is as for other settings.
    assert run(words(plain, "--ddp")) == 2
    assert "ddp is False there, True here" in " ".join(capsys.readouterr().err.split())


@pytest.fixture
def group() -> Iterator[None]:
    """A group of this process alone."""
    init_process_group("gloo", store=HashStore(), rank=0, world_size=1)
    yield
    destroy_process_group()


@pytest.mark.parametrize(
    ("protocol", "rounds"),
    [
        (Fast(L1(0.05)), 1),
        (Iterative(L1(0.05), steps=2), 1),
        (Free(L1(0.05), replays=3), 3),
        (Penalised(L1(0.05)), 1),
        (Penalised(L1(0.05), inner="eval"), 1),
    ],
    ids=["fast", "iterative", "free", "penalised", "penalised in evaluation mode"],
)
def test_gradients_of_all_pieces_are_averaged_once_a_round(
    group: None, protocol: Protocol, rounds: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(4, 3, 16, 16, generator=generator), torch.arange(4)
    seen = []

    def averages(state: None, bucket: GradBucket) -> Future[Tensor]:
        seen.append(bucket)
        return allreduce_hook(state, bucket)

    weights = []
    for wrap in (False, True):
        net = tiny_models.normalised().module.requires_grad_(True)
        model = averaged(net, x, Processes(), 0)[0] if wrap else net
        if isinstance(model, DistributedDataParallel):
            model.register_comm_hook(None, averages)
        optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
        protocols = [copy.deepcopy(protocol) for _ in range(2)]
        trainer = Trainer(model, optimiser, protocols, pieces=2)
        halves = [
            Piece(number=n, x=x[rows], y=y[rows], ids=y[rows])
            for n, rows in enumerate((slice(0, 1), slice(1, 4)))
        ]
        for step in range(2):
            trainer.step(halves, count=4, step=step)
        weights.append([value.clone() for value in net.state_dict().values()])
    assert len(seen) == 2 * rounds
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other)


def test_only_weights_without_a_gradient_are_frozen(group: None) -> None:
    net = tiny_models.helped().module.requires_grad_(True)
    state = torch.get_rng_state()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    _, named = averaged(net, torch.ones(2, 3, 16, 16), Processes(), 0)
    frozen = [name for name, weight in net.named_parameters() if not weight.requires_grad]
    assert frozen == named == ["helper.weight", "helper.bias"]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
    assert not net.training


def test_processes_that_use_other_weights_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    net = tiny_models.helped().module.requires_grad_(True)
    monkeypatch.setattr(Processes, "gather", lambda _, own: [own, []])
    with pytest.raises(ValueError, match=r"ddp: .*same weights"):
        averaged(net, torch.zeros(2, 3, 16, 16), Processes(), 0)


@pytest.mark.parametrize(("others", "expected"), [(["b"], True), (["a"], False), ([None], False)])
def test_nccl_is_for_processes_with_a_gpu_of_their_own(
    others: list[str | None], expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.distributed, "is_nccl_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="a")
    )
    team = SimpleNamespace(gather=lambda own: [own, *others])
    assert _own_gpus(torch.device("cuda:0"), team) == expected
    assert not _own_gpus(torch.device("cpu"), team)
