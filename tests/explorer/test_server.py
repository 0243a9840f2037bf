"""The page on this machine: who is answered, what is sent, and what several users get."""

import http.client
import json
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from urllib.parse import quote, urlsplit

import pytest
from starlette.testclient import TestClient

from explored import CELL, unpacked
from moreaugrad.explorer.core import UPLOAD_BYTES, Explorer
from moreaugrad.explorer.server import FILES, Server


@pytest.fixture
def server(explorer: Explorer) -> Server:
    return Server(explorer)


@pytest.fixture
def client(server: Server) -> Iterator[TestClient]:
    with TestClient(server.app, base_url="http://localhost:8000") as found:
        yield found


def api(server: Server, **asked: object) -> str:
    return f"/{server.token}/api?user=u&asked={quote(json.dumps(asked))}"


def test_the_page_and_its_files(client: TestClient, server: Server) -> None:
    page = client.get(f"/{server.token}/")
    assert page.status_code == 200
    assert page.text == client.get(f"/{server.token}/index.html").text
    for name in FILES:
        found = client.get(f"/{server.token}/{name}")
        assert found.status_code == 200
        assert "default-src 'none'" in found.headers["content-security-policy"]
        assert "unsafe" not in found.headers["content-security-policy"]
        assert found.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in found.headers
        assert "onclick" not in found.text or name.endswith(".js")
        assert " style=" not in found.text.replace('`" style=', "")


@pytest.mark.parametrize("path", [
    "/", "/api", "//", "/{t}", "/{t}x/", "/x/index.html", "/{t}/../core.py", "/{t}/..%2fcore.py",
    "/{t}/widget.js", "/{t}/%2e%2e/%2e%2e/core.py", "/%ff/", "/é/",
])  # fmt: skip
def test_other_paths_have_no_answer(client: TestClient, server: Server, path: str) -> None:
    found = client.get(path.replace("{t}", server.token), follow_redirects=False)
    assert found.status_code in (307, 403, 404, 405)
    assert server.token not in found.text


def test_without_the_token_nothing_is_computed(client: TestClient, server: Server) -> None:
    found = client.post(api(server, do="info").replace(server.token, "x" * 22))
    assert found.status_code == 403


@pytest.mark.parametrize(("headers", "code"), [
    ({"host": "evil.example:8000"}, 421), ({"host": "localhost.evil.example"}, 421),
    ({"origin": "http://evil.example"}, 403), ({"origin": "null"}, 403),
    ({"origin": "http://localhost:8001"}, 403), ({"origin": "http://localhost:8000"}, 200),
    ({"host": "127.0.0.1:8000"}, 200), ({"host": "[::1]:8000"}, 200), ({}, 200),
])  # fmt: skip
def test_other_sites_are_refused(
    client: TestClient, server: Server, headers: dict[str, str], code: int
) -> None:
    assert client.post(api(server, do="info"), headers=headers).status_code == code


def test_another_host_is_called_by_any_name(explorer: Explorer) -> None:
    server = Server(explorer, "0.0.0.0")
    with TestClient(server.app, base_url="http://workstation:8000") as client:
        assert client.get(f"/{server.token}/").status_code == 200


def test_answers_are_messages(client: TestClient, server: Server) -> None:
    found = client.post(api(server, do="open", name="<b>.png"), content=CELL.read_bytes())
    ((header, png),) = unpacked(found.content)
    assert header["name"] == "<b>.png"
    assert png.startswith(b"\x89PNG")
    key = header["image"]
    asked = api(server, do="explain", image=key, method="smoothgrad")
    (recipes, _), *frames = unpacked(client.post(asked).content)
    assert "'<b>.png'" in recipes["command"]
    assert frames[-1][0]["done"]


@pytest.mark.parametrize("asked", ["", "{", "[" * 20_000, "nan-", '"\ud800"'])
def test_what_is_no_json_is_refused(client: TestClient, server: Server, asked: str) -> None:
    query = quote(asked.encode("utf-8", "surrogatepass"))
    found = client.post(f"/{server.token}/api?asked={query}")
    assert found.status_code == 400 or "refused" in unpacked(found.content)[0][0]


def test_uploads_are_limited_before_they_are_there(client: TestClient, server: Server) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 4 * UPLOAD_BYTES:
            sent += 2**20
            yield bytes(2**20)

    assert client.post(api(server, do="open"), content=endless()).status_code == 413


@contextmanager
def begun(address: str, user: object = "u", **asked: object) -> Iterator[http.client.HTTPResponse]:
    """The head of an answer; the connection is closed at the end."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)
    with closing(connection):
        query = f"user={user}&asked={quote(json.dumps(asked))}"
        connection.request("POST", f"{parts.path}api?{query}")
        with closing(connection.getresponse()) as answer:
            yield answer


def test_a_reader_that_leaves_frees_the_device(explorer: Explorer, address: str) -> None:
    passes = list[float]()
    module = explorer.network.model.module
    hook = module.register_forward_hook(lambda *_: passes.append(time.monotonic()))
    try:
        with begun(address, do="explain", image="0", quality="fine", sparsity=0.5) as answer:
            while not passes:
                answer.read(100)
        limit = time.monotonic() + 10
        while explorer._turns._busy:
            assert time.monotonic() < limit
            time.sleep(0.05)
        count = len(passes)
        time.sleep(0.3)
        assert len(passes) == count
    finally:
        hook.remove()


def work(address: str, found: list[bytes], **asked: object) -> threading.Thread:
    """A thread that adds the last message's arrays."""

    def wait() -> None:
        with begun(address, **asked) as answer:
            found.append(unpacked(answer.read())[-1][1])

    thread = threading.Thread(target=wait)
    thread.start()
    return thread


def test_a_second_user_does_not_wait_for_the_first(address: str) -> None:
    found = list[bytes]()
    slow = work(address, found, do="explain", image="0", quality="fine", user="a")
    with begun(address, do="open", image="0", user="b") as answer:
        assert unpacked(answer.read())[0][0]["probabilities"]
    assert not found
    slow.join(60)
    assert found


def test_many_users_get_their_own_maps(address: str) -> None:
    """Each the same as alone, whatever the others do meanwhile."""
    asked = {"do": "explain", "image": "0", "quality": "preview"}
    found = [list[bytes]() for _ in range(10)]
    together = [work(address, found[n], **asked, seed=n % 2, user=n) for n in range(8)]
    for thread in together:
        thread.join(60)
    for n in (8, 9):
        work(address, found[n], **asked, seed=n % 2).join(60)
    assert all(found[n] == found[8 + n % 2] for n in range(8))
    assert found[8] != found[9]
