"""Downloads against a server on this machine: resumed, pinned, and refused when they change."""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from robustviews.checkpoints import CheckpointError, check, download

CONTENT = bytes(range(256)) * 9000  # more than two chunks


class Server:
    """A server of one file, which can be told to misbehave.

    Attributes:
        content: of the file.
        tag: entity tag; None for none.
        ranges: whether it answers requests for a part.
        ends_after: bytes after which it closes the connection; None for all.
        status: error to answer with; None for none.
        asked: ranges that were asked for, None for the whole file.
        sent: bytes of each answer.
    """

    def __init__(self):
        self.content, self.tag, self.ranges = CONTENT, '"1"', True
        self.ends_after = self.status = None
        self.asked, self.sent = [], []


@pytest.fixture
def server():
    state = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if state.status:
                self.send_error(state.status)
                return
            begin = self.headers.get("Range")
            state.asked.append(begin)
            fits = self.headers.get("If-Range", state.tag) == state.tag
            start = int(begin[6:-1]) if begin and state.ranges and fits else 0
            if start >= len(state.content):
                self.send_error(416)
                return
            state.sent.append(len(state.content) - start)
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(state.content) - start))
            if state.tag:
                self.send_header("ETag", state.tag)
            self.end_headers()
            end = len(state.content) if state.ends_after is None else start + state.ends_after
            self.wfile.write(state.content[start:end])

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        state.address = f"http://127.0.0.1:{running.server_port}/resnet50.pth"
        yield state
        running.shutdown()
        thread.join()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "raw" / "resnet50.pth"


def interrupted(server, path, after=1_500_000):
    server.ends_after = after
    with pytest.raises(CheckpointError, match=f"{after} bytes are kept in .*run the same command"):
        download(server.address, path)
    server.ends_after = None
    assert not path.exists()


def test_a_download_is_the_file_and_nothing_else(server, path):
    download(server.address, path)
    assert path.read_bytes() == CONTENT
    assert list(path.parent.iterdir()) == [path]
    download(server.address, path)
    assert server.asked == [None], "a file that is there is not asked for"


def test_an_interrupted_download_is_resumed_where_it_stopped(server, path):
    interrupted(server, path)
    download(server.address, path)
    assert path.read_bytes() == CONTENT
    assert server.asked == [None, "bytes=1500000-"]
    assert server.sent == [len(CONTENT), len(CONTENT) - 1_500_000]
    assert list(path.parent.iterdir()) == [path]


def test_a_download_starts_anew_if_the_file_changed_meanwhile(server, path):
    interrupted(server, path)
    server.content, server.tag = CONTENT[::-1], '"2"'
    download(server.address, path)
    assert path.read_bytes() == CONTENT[::-1]


@pytest.mark.parametrize("lacking", ["ranges", "tag"])
def test_a_download_starts_anew_if_the_server_cannot_resume(lacking, server, path):
    setattr(server, lacking, None)
    interrupted(server, path)
    download(server.address, path)
    assert path.read_bytes() == CONTENT


def test_a_complete_part_is_downloaded_anew_rather_than_trusted(server, path):
    interrupted(server, path)
    part = path.with_name("resnet50.pth.part")
    part.write_bytes(bytes(len(CONTENT)))
    download(server.address, path)
    assert path.read_bytes() == CONTENT


def test_a_server_that_refuses_or_does_not_answer_is_named(server, path):
    server.status = 404
    with pytest.raises(CheckpointError, match=r"resnet50\.pth: Not Found; 0 bytes are kept"):
        download(server.address, path)
    with pytest.raises(CheckpointError, match=r"127\.0\.0\.1:9/x: .*refused"):
        download("http://127.0.0.1:9/x", path)


def test_a_file_is_pinned_at_first_sight_and_refused_after_a_change(path):
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    pin = path.with_name("resnet50.pth.sha256")
    digest = hashlib.sha256(CONTENT).hexdigest()
    assert check(path) == digest
    assert not pin.exists()
    assert check(path, pin=True) == digest
    assert pin.read_text(encoding="utf-8") == f"{digest}  resnet50.pth\n"
    path.write_bytes(CONTENT[:-1])
    for pinning in (True, False):
        with pytest.raises(CheckpointError, match=f"but {digest} is pinned in {pin}"):
            check(path, pin=pinning)


def test_an_expected_hash_may_be_shortened_and_must_fit(path):
    path.parent.mkdir()
    path.write_bytes(CONTENT)
    digest = hashlib.sha256(CONTENT).hexdigest()
    for good in (digest, digest[:8], f"sha256:{digest.upper()}"):
        assert check(path, good) == digest
    for wrong in (digest[::-1], "0" * 64, digest[:7], ".*", digest + "0"):
        with pytest.raises(CheckpointError, match="is expected; remove the file"):
            check(path, wrong)
