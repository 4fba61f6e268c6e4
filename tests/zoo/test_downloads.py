"""Files of models that lie on a server, here one on this machine."""

import concurrent.futures
import functools
import hashlib
import http.server
import json
import pathlib
import shutil
import threading

import numpy as np
import pytest

import zoo
from tfsparse import UsageError
from zoo import models
from zoo.downloads import fetch

CONTENT = np.random.default_rng(0).bytes(3_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(http.server.SimpleHTTPRequestHandler):
    """Serves one file, from the byte that is asked for if `ranges`; keeps what was asked."""

    ranges, most, asked = True, None, []

    def do_GET(self):
        start = self.headers.get("Range")
        self.asked.append(start)
        first = int(start.removeprefix("bytes=").rstrip("-")) if start and self.ranges else 0
        content = pathlib.Path(self.translate_path(self.path)).read_bytes()
        if first > len(content):
            self.send_error(416)
            return
        self.send_response(206 if first else 200)
        self.end_headers()
        self.wfile.write(content[first:][: self.most])

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path, monkeypatch):
    """(URL of a folder, the folder, the handler's class); Keras' cache is in tmp_path / "home"."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    folder = tmp_path / "served"
    folder.mkdir()
    (folder / "file").write_bytes(CONTENT)
    handler = type("Handler", (Server,), {"asked": []})
    make = functools.partial(handler, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), make) as running:
        thread = threading.Thread(target=running.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder, handler
        running.shutdown()


def test_a_file_is_fetched_once(server, tmp_path):
    url, _, handler = server
    for _ in range(2):
        path = fetch(f"{url}/file", "weights", len(CONTENT), SHA256)
        assert path == tmp_path / "home" / "models" / "tfsparse" / "weights"
        assert path.read_bytes() == CONTENT
    assert handler.asked == [None]
    assert {each.name for each in path.parent.iterdir()} == {"weights", ".lock"}


def test_two_that_fetch_at_once_both_get_the_file(server):
    url, _, handler = server
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        fetches = [
            threads.submit(fetch, f"{url}/file", "weights", len(CONTENT), SHA256) for _ in range(4)
        ]
        assert {each.result().read_bytes() for each in fetches} == {CONTENT}
    assert handler.asked == [None]


@pytest.mark.parametrize("ranges", [True, False])
def test_a_download_that_was_interrupted_continues(server, tmp_path, ranges):
    url, _, handler = server
    handler.ranges = ranges
    folder = tmp_path / "home" / "models" / "tfsparse"
    folder.mkdir(parents=True)
    (folder / "weights.partial").write_bytes(CONTENT[:1_234_567])
    assert fetch(f"{url}/file", "weights", len(CONTENT), SHA256).read_bytes() == CONTENT
    assert handler.asked == ["bytes=1234567-"]


def test_another_file_is_refused_and_the_next_try_starts_anew(server, tmp_path):
    url, folder, _ = server
    (folder / "file").write_bytes(CONTENT[::-1])
    with pytest.raises(UsageError, match="sha256"):
        fetch(f"{url}/file", "weights", len(CONTENT), SHA256)
    assert not list((tmp_path / "home" / "models" / "tfsparse").glob("weights*"))
    (folder / "file").write_bytes(CONTENT)
    assert fetch(f"{url}/file", "weights", len(CONTENT), SHA256).read_bytes() == CONTENT


def test_a_connection_that_ends_early_loses_nothing(server):
    url, _, handler = server
    handler.most = 1_000_000
    for done in (1, 2):
        with pytest.raises(UsageError, match=f"after {done},000,000 of 3,000,000.*continues"):
            fetch(f"{url}/file", "weights", len(CONTENT), SHA256)
    assert fetch(f"{url}/file", "weights", len(CONTENT), SHA256).read_bytes() == CONTENT
    assert handler.asked == [None, "bytes=1000000-", "bytes=2000000-"]


def test_a_rest_that_the_server_does_not_have_is_dropped(server, tmp_path):
    url, folder, _ = server
    partial = tmp_path / "home" / "models" / "tfsparse" / "weights.partial"
    partial.parent.mkdir(parents=True)
    partial.write_bytes(CONTENT[:2_000_000])
    (folder / "file").write_bytes(b"short")
    with pytest.raises(UsageError, match="416"):
        fetch(f"{url}/file", "weights", len(CONTENT), SHA256)
    (folder / "file").write_bytes(CONTENT)
    assert fetch(f"{url}/file", "weights", len(CONTENT), SHA256).read_bytes() == CONTENT


def test_a_larger_file_is_not_stored(server):
    url, folder, _ = server
    (folder / "file").write_bytes(CONTENT * 3)
    path = fetch(f"{url}/file", "weights", len(CONTENT), SHA256)  # its beginning is right
    assert path.stat().st_size == len(CONTENT)


def test_no_server(server):
    with pytest.raises(UsageError, match="Cannot download"):
        fetch("http://127.0.0.1:9/file", "weights", 1, SHA256)
    with pytest.raises(UsageError, match=r"Cannot download .*/none"):
        fetch(f"{server[0]}/none", "weights", 1, SHA256)


def test_zoo_model_from_a_server(server, tmp_path, monkeypatch):
    url, folder, _ = server
    name = zoo.list_models()[0]
    expected = zoo.load(name).get_weights()
    for each in ("cards", "weights"):
        shutil.copytree(models._FOLDER / each, tmp_path / each)
    monkeypatch.setattr(models, "_FOLDER", tmp_path)
    path = tmp_path / "cards" / f"{name}.json"
    card = json.loads(path.read_text())
    card["weights"]["url"] = f"{url}/{card['weights']['file']}"
    path.write_text(json.dumps(card))
    shutil.move(tmp_path / "weights" / card["weights"]["file"], folder)
    for weight, value in zip(zoo.load(name).get_weights(), expected, strict=True):
        np.testing.assert_array_equal(weight, value)
    card["weights"]["url"] = "file:///etc/passwd"
    path.write_text(json.dumps(card))
    with pytest.raises(UsageError, match="url"):
        zoo.load(name)
