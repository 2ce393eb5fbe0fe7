import hashlib
import io
import os
import signal
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import h5py
import pytest

from mrcnn.checkpoints import downloads


class Handler(BaseHTTPRequestHandler):
    """Serves server.files: {path: (content, bytes really sent, event to wait for in the middle)}."""

    def do_GET(self):
        self.server.requests.append(self.path)
        if self.path not in self.server.files:
            self.send_error(404)
            return
        content, sent, event = self.server.files[self.path]
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: sent // 2])
        self.wfile.flush()
        if event is not None:
            self.server.reached.set()
            event.wait(30)
        self.wfile.write(content[sent // 2 : sent])

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.requests, self.reached = {}, [], threading.Event()

    def put(self, name, content, sent=None, event=None):
        self.files[f"/{name}"] = (content, len(content) if sent is None else sent, event)
        return f"http://127.0.0.1:{self.server_port}/{name}"

    def handle_error(self, request, client_address):
        """A client that hangs up is what some tests are about."""


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")


@pytest.fixture
def server():
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def hdf5_bytes():
    stream = io.BytesIO()
    with h5py.File(stream, "w") as file:
        file["x"] = list(range(1000))
    return stream.getvalue()


def zip_bytes():
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("train/1.txt", "balloon" * 100)
    return stream.getvalue()


def md5(content):
    return "md5:" + hashlib.md5(content).hexdigest()


CONTENT = b"weights" * 5000


def test_file_with_its_hash(server, tmp_path, capsys):
    url = server.put("a.h5", CONTENT)
    path = downloads.fetch(url, tmp_path / "new" / "folder" / "a.h5", md5(CONTENT))
    assert path == tmp_path / "new" / "folder" / "a.h5"
    assert path.read_bytes() == CONTENT
    assert os.listdir(path.parent) == ["a.h5"]
    shown = capsys.readouterr().out.splitlines()
    assert shown == [f"Downloading {url} to {path} ...", "... done, 35,000 bytes."]
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_other_kinds_of_hash(server, tmp_path):
    url = server.put("a.bin", CONTENT)
    sha = "sha256:" + hashlib.sha256(CONTENT).hexdigest().upper()
    assert downloads.fetch(url, tmp_path / "a.bin", sha, verbose=0).read_bytes() == CONTENT


def test_first_digits_of_a_hash(server, tmp_path):
    url = server.put("a.bin", CONTENT)
    digits = hashlib.sha256(CONTENT).hexdigest()
    path = tmp_path / "a.bin"
    with pytest.raises(OSError, match=f"sha256:{digits}"):
        downloads.fetch(url, path, "sha256-prefix:00000000", verbose=0)
    assert downloads.fetch(url, path, f"sha256-prefix:{digits[:8]}", verbose=0).read_bytes() == CONTENT
    with pytest.raises(OSError, match="a different file than expected"):
        downloads.fetch(url, path, f"sha256:{digits[:8]}", verbose=0)


def test_verbose_0_prints_nothing(server, tmp_path, capfd):
    downloads.fetch(server.put("a.h5", CONTENT), tmp_path / "a.h5", md5(CONTENT), verbose=0)
    assert capfd.readouterr() == ("", "")


def test_an_existing_file_with_this_hash_is_kept(server, tmp_path):
    (tmp_path / "a.h5").write_bytes(CONTENT)
    downloads.fetch(server.put("a.h5", CONTENT), tmp_path / "a.h5", md5(CONTENT))
    assert server.requests == []


def test_an_existing_file_with_another_hash_is_replaced(server, tmp_path):
    (tmp_path / "a.h5").write_bytes(CONTENT[:100])
    downloads.fetch(server.put("a.h5", CONTENT), tmp_path / "a.h5", md5(CONTENT))
    assert (tmp_path / "a.h5").read_bytes() == CONTENT


def test_wrong_hash_is_an_error_that_says_what_to_do(server, tmp_path):
    url = server.put("a.h5", b"other")
    (tmp_path / "a.h5").write_bytes(b"old")
    with pytest.raises(OSError, match="a different file than expected") as caught:
        downloads.fetch(url, tmp_path / "a.h5", md5(CONTENT))
    for word in (url, str(tmp_path / "a.h5"), md5(CONTENT), md5(b"other"), "5 bytes"):
        assert word in str(caught.value)
    assert (tmp_path / "a.h5").read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a.h5"]


@pytest.mark.parametrize("name", ["a.h5", "a.bin"])
@pytest.mark.parametrize("known_hash", [md5(CONTENT), None])
def test_truncated_transfer(server, tmp_path, name, known_hash):
    url = server.put(name, CONTENT, sent=len(CONTENT) // 2)
    with pytest.raises(OSError, match="Cannot download") as caught:
        downloads.fetch(url, tmp_path / name, known_hash)
    assert url in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_no_server(tmp_path):
    with Server() as closed:
        url = closed.put("a.h5", CONTENT)
    with pytest.raises(ConnectionError, match="To continue manually") as caught:
        downloads.fetch(url, tmp_path / "a.h5", md5(CONTENT))
    for word in (url, str(tmp_path / "a.h5"), md5(CONTENT)):
        assert word in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_address_that_does_not_exist(server, tmp_path):
    url = server.put("a.h5", CONTENT) + ".gz"
    with pytest.raises(OSError, match=r"404.*hash: not known"):
        downloads.fetch(url, tmp_path / "a.h5")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(("name", "content"), [("a.h5", hdf5_bytes()), ("a.zip", zip_bytes())])
def test_without_a_hash_the_file_must_open(server, tmp_path, capsys, name, content):
    path = tmp_path / name
    with pytest.raises(OSError, match="a different file than expected"):
        downloads.fetch(server.put(name, content[: len(content) // 2]), path)
    assert os.listdir(tmp_path) == []
    with pytest.raises(OSError, match="a different file than expected"):
        downloads.fetch(server.put(name, b"<!DOCTYPE html>"), path)
    assert os.listdir(tmp_path) == []
    url = server.put(name, content)
    capsys.readouterr()
    assert downloads.fetch(url, path).read_bytes() == content
    assert f", sha256:{hashlib.sha256(content).hexdigest()}." in capsys.readouterr().out
    requests = len(server.requests)
    downloads.fetch(url, path)
    assert len(server.requests) == requests
    path.write_bytes(content[: len(content) // 2])
    assert downloads.fetch(url, path).read_bytes() == content


def test_archive_with_a_damaged_member(server, tmp_path):
    content = zip_bytes().replace(b"balloonballoon", b"ballooNballoon")
    with pytest.raises(OSError, match=r"the member train/1\.txt is damaged"):
        downloads.fetch(server.put("a.zip", content), tmp_path / "a.zip")


def test_interrupt_leaves_nothing_under_the_final_name(server, tmp_path):
    release = threading.Event()
    url = server.put("a.h5", CONTENT * 100, event=release)
    # A process that starts in the background ignores interrupts.
    code = (
        "import signal, sys; from mrcnn.checkpoints import downloads; "
        "signal.signal(signal.SIGINT, signal.default_int_handler); downloads.fetch(*sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, url, str(tmp_path / "a.h5")], stderr=subprocess.PIPE, text=True
    )
    assert server.reached.wait(60)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    release.set()
    assert "KeyboardInterrupt" in error
    assert os.listdir(tmp_path) == []


def test_path_of_a_folder(tmp_path):
    with pytest.raises(IsADirectoryError, match="Append a file name") as caught:
        downloads.fetch("http://127.0.0.1:9/a.h5", tmp_path)
    assert caught.value.filename == str(tmp_path)


def test_hash_without_an_algorithm(tmp_path):
    with pytest.raises(ValueError, match="Received: 'abc'"):
        downloads.fetch("http://127.0.0.1:9/a.h5", tmp_path / "a.h5", "abc")


@pytest.mark.parametrize("url", ["http://example.com/a.h5", "ftp://example.com/a.h5", "a.h5"])
def test_only_https(tmp_path, url):
    with pytest.raises(ValueError, match="must be an HTTPS URL"):
        downloads.fetch(url, tmp_path / "a.h5")


def test_a_server_cannot_lead_to_an_address_without_encryption(server, tmp_path, monkeypatch):
    """An http server of this machine stands for the https server, and localhost for the other address."""
    target = server.put("target.h5", hdf5_bytes())
    server.put("a.h5", b"")
    moved = target.replace("127.0.0.1", "localhost")
    monkeypatch.setattr(Handler, "do_GET", redirecting(Handler.do_GET, "/a.h5", moved))
    url = target.replace("target.h5", "a.h5")
    assert downloads.fetch(url, tmp_path / "a.h5", verbose=0).read_bytes() == hdf5_bytes()
    monkeypatch.setattr(downloads, "LOCAL_HOSTS", ("127.0.0.1",))
    with pytest.raises(ConnectionError, match=f"the server redirected to {moved}, which is not an HTTPS URL"):
        downloads.fetch(url, tmp_path / "b.h5", verbose=0)
    assert os.listdir(tmp_path) == ["a.h5"]


def redirecting(respond, path, target):
    def respond_or_redirect(handler):
        if handler.path != path:
            respond(handler)
            return
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return respond_or_redirect


# ---------------------------------------------------------------- published files


@pytest.mark.parametrize("name", ["torchvision", "torchvision-v2"])
def test_weights_by_name_go_to_the_cache_of_keras(server, tmp_path, monkeypatch, name):
    published = downloads.PUBLISHED[name]
    file_name = published.url.rpartition("/")[2]
    assert file_name.endswith(published.known_hash.removeprefix("sha256-prefix:") + ".pth")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    digits = hashlib.sha256(CONTENT).hexdigest()
    url = server.put(file_name, CONTENT)
    monkeypatch.setitem(downloads.PUBLISHED, name, published._replace(url=url))
    with pytest.raises(OSError, match=published.known_hash):
        downloads.download_trained_weights(name, verbose=0)
    changed = downloads.PublishedWeights(url, f"sha256-prefix:{digits[:8]}")
    monkeypatch.setitem(downloads.PUBLISHED, name, changed)
    path = downloads.download_trained_weights(name, verbose=0)
    assert path == str(tmp_path / "keras" / "models" / file_name)


def test_coco_weights(server, tmp_path, monkeypatch, capsys):
    url = server.put("mask_rcnn_coco.h5", CONTENT)
    monkeypatch.setattr(downloads, "COCO_MODEL_URL", url)
    with pytest.raises(OSError, match="e98aaff6f99e307b5e2a8a3ff741a518"):
        downloads.download_trained_weights(str(tmp_path / "coco.h5"), verbose=0)
    monkeypatch.setattr(downloads, "COCO_MODEL_HASH", md5(CONTENT))
    downloads.download_trained_weights(str(tmp_path / "coco.h5"))
    assert (tmp_path / "coco.h5").read_bytes() == CONTENT
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_imagenet_weights_are_kept_in_the_cache_of_keras(server, tmp_path, monkeypatch):
    name = "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
    monkeypatch.setattr(downloads, "IMAGENET_RESNET50_URL", server.put(name, CONTENT))
    monkeypatch.setattr(downloads, "IMAGENET_RESNET50_HASH", md5(CONTENT))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    assert downloads.get_imagenet_weights() == str(tmp_path / "keras" / "models" / name)
    downloads.get_imagenet_weights()
    assert server.requests == [f"/{name}"]

    monkeypatch.delenv("KERAS_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    path = downloads.get_imagenet_weights()
    assert path == str(tmp_path / "home" / ".keras" / "models" / name)


def test_addresses():
    releases = "https://github.com/matterport/Mask_RCNN/releases/download/"
    assert releases + "v2.0/mask_rcnn_coco.h5" == downloads.COCO_MODEL_URL
    assert releases + "v2.1/mask_rcnn_balloon.h5" == downloads.BALLOON_MODEL_URL
    assert releases + "v2.1/balloon_dataset.zip" == downloads.BALLOON_DATASET_URL
    assert downloads.IMAGENET_RESNET50_HASH == "md5:a268eb855778b3df3c7506639542a6af"
