"""Two processes that share each batch end with the weights of one that has all of it."""

import socket
from typing import Any

import pytest
import torch

from moreaugrad.training import Fast, Free, GaussianNoise, Penalised
from processes import SERVER
from text_models import hugging_face
from trained import (
    LAYER,
    PENALTY,
    RATE,
    by_hand,
    in_process,
    joined,
    lightning,
    loader,
    network,
    reader,
    samples,
    texts,
)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The weights of each training; of both processes they are the same."""
    lightning()
    pytest.importorskip("accelerate")
    folder = tmp_path_factory.mktemp("shared")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    running = [SERVER.Process(target=in_process, args=(rank, port, folder)) for rank in range(2)]
    for each in running:
        each.start()
    for rank, each in enumerate(running):
        each.join(timeout=240)
        note = folder / f"failed-{rank}"
        assert each.exitcode == 0, note.read_text() if note.exists() else each.exitcode
    one, other = (torch.load(folder / f"weights-{rank}.pt") for rank in range(2))
    for name, weights in one.items():
        assert all(torch.equal(weights[key], other[name][key]) for key in weights), name
    return one


def equal(one: dict[str, Any], other: torch.nn.Module) -> bool:
    return all(torch.allclose(one[k], v, atol=1e-5) for k, v in other.state_dict().items())


@pytest.mark.parametrize("name", ["lightning", "accelerate"])
def test_trainers_of_images(name: str, shared: dict[str, Any]) -> None:
    assert equal(shared[name], by_hand(network(plain=True), Fast(PENALTY), loader(8)))


def test_noise_differs_between_processes(shared: dict[str, Any]) -> None:
    assert equal(shared["noise"], by_hand(network(plain=True), GaussianNoise(0.5), loader(8)))


@pytest.mark.parametrize(
    "protocol", [Fast(PENALTY), Free(PENALTY, replays=2), Penalised(PENALTY)],
    ids=["fast", "free", "penalised"],
)  # fmt: skip
def test_rounds_of_a_wrapped_model(
    protocol: Any, shared: dict[str, Any], request: pytest.FixtureRequest
) -> None:
    name = request.node.callspec.id
    net = network(plain=True)
    optimiser = torch.optim.SGD(net.parameters(), lr=RATE)
    for _ in range(2):
        for r in protocol.rounds(net, *samples()):
            optimiser.zero_grad()
            r.loss.mean().backward()
            optimiser.step()
    assert equal(shared[name], net)


def test_a_layer_in_transformers(shared: dict[str, Any]) -> None:
    model = reader(hugging_face())
    optimiser, protocol = torch.optim.SGD(model.parameters(), lr=RATE), Fast(PENALTY, layer=LAYER)
    for _ in range(2):
        for rows in (texts()[:4], texts()[4:]):
            model.train()
            inputs, y = joined(rows)
            (found,) = protocol.rounds(model, inputs, y)
            optimiser.zero_grad()
            found.loss.mean().backward()
            optimiser.step()
    assert equal(shared["transformers"], model)
