"""Published files: fetched once, checked before they are kept, and one line where that fails."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import traceback
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import chain, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import zoo
import zoo.pretrained.fetch as fetching
from zoo.paths import cache_folder, write
from zoo.pretrained import download
from zoo.pretrained.addresses import place as place_of
from zoo.pretrained.fetch import cached, converted, fetch

URL = "https://weights.example/models/net-1234.pth"
WEIGHTS = np.random.default_rng(0).bytes(700_000)
OTHER = np.random.default_rng(1).bytes(700_000)
SHA256 = "sha256:" + hashlib.sha256(WEIGHTS).hexdigest()
PAGE = b"<!DOCTYPE html>\n<html><title>Sign in</title></html>" + b" " * 10_000
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass
class Host:
    """A file server on this machine, and what it is to do wrong."""

    port: int = 0
    files: dict[str, bytes] = field(default_factory=dict)  # path -> content
    etag: str | None = '"1"'
    ranges: bool = True  # answers a request for a part with that part
    faults: list[Any] = field(default_factory=list)  # for the requests to come, one each: a status,
    #     or ("cut", bytes), ("redirect", address), ("wait", event), ("headers", more of them),
    #     ("raw", what is sent instead of an answer)
    seen: list[str] = field(default_factory=list)  # "METHOD path [range]"
    logins: list[str | None] = field(default_factory=list)  # of each request

    def address(self, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}"


class Handler(BaseHTTPRequestHandler):
    host: Host

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        host, wanted = self.host, self.headers["Range"]
        host.logins.append(self.headers["Authorization"])
        host.seen.append(" ".join(filter(None, (self.command, self.path, wanted))))
        fault = host.faults.pop(0) if host.faults else None
        content = host.files.get(self.path)
        if fault is None and content is None:
            fault = 404
        if isinstance(fault, int):
            self.refuse(fault)
            return
        kind, value = fault or ("", None)
        if kind == "raw":
            with suppress(OSError):  # a client that had enough
                for piece in value:
                    self.connection.sendall(piece)
            return
        if kind == "redirect":
            self.send_response(302)
            self.send_header("Location", value)
            self.send_header("Content-Length", "0")
            self.send_header("X-Linked-Etag", host.etag or "")  # the Hub's
            self.end_headers()
            return
        assert content is not None
        start = 0
        if wanted and host.ranges and self.headers["If-Range"] in (None, host.etag):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                self.refuse(416)
                return
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        headers = {"Content-Length": str(len(content) - start), "ETag": host.etag}
        headers |= value if kind == "headers" else {}
        for name, text in headers.items():
            if text is not None:
                self.send_header(name, text)
        self.end_headers()
        if kind == "wait":
            value.wait(20)
        end = start + value if kind == "cut" else len(content)
        with suppress(ConnectionError):  # a client that had enough
            self.wfile.write(content[start:end])

    def refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.send_header("X-Error-Code", self.reason(status))
        self.end_headers()

    def reason(self, status: int) -> str:
        """As the Hub tells one 404 from the other."""
        repository, _, rest = self.path.partition("/resolve/")
        if status != 404:
            return "GatedRepo" if status == 403 else ""
        if not any(path.startswith(repository) for path in self.host.files):
            return "RepoNotFound"
        return "EntryNotFound" if rest.startswith(("main", COMMIT)) else "RevisionNotFound"


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def serve(server) -> Host:
    Handler.host = Host(port=server.server_port)
    return Handler.host


@pytest.fixture
def host(serve, monkeypatch, tmp_path) -> Host:
    """Where plain addresses are asked for; it has the file of `URL`. No try waits for long."""
    serve.files["/weights.example/models/net-1234.pth"] = WEIGHTS
    monkeypatch.setenv("ZOO_MIRROR", serve.address() + "/")
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "cache"))
    for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "_WAITS", (0.0, 0.0))
    return serve


GET = "GET /weights.example/models/net-1234.pth"


def get(source: str = URL, hash: str = SHA256, **known: Any) -> Path:
    return fetch(source, hash=hash, desc="net.tag", **known)


def refused(source: str = URL, hash: str = SHA256, **known: Any) -> str:
    """The one line that says why there is no file."""
    with pytest.raises(zoo.ZooError) as info:
        get(source, hash, **known)
    line = str(info.value)
    assert "\n" not in line
    assert line.startswith("net.tag: ")
    return line


def kept() -> list[str]:
    """The files in the cache, but for locks and notes."""
    files = cache_folder().rglob("*")
    return sorted(p.name for p in files if p.is_file() and p.suffix not in (".lock", ".sha256"))


def assert_next_succeeds(host: Host) -> None:
    host.faults.clear()
    assert get().read_bytes() == WEIGHTS
    assert kept() == ["net-1234.pth"]


# --- What works ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "hash", [SHA256, SHA256[:15].upper(), "md5:" + hashlib.md5(WEIGHTS).hexdigest(), ""]
)
def test_cold_then_warm(host, tmp_path, hash):
    assert cached(URL) is None
    path = get(hash=hash, size=len(WEIGHTS))
    assert path == tmp_path / "cache/files/weights.example/models/net-1234.pth"
    assert path.read_bytes() == WEIGHTS
    assert kept() == ["net-1234.pth"]
    assert host.seen == [GET]
    assert get(hash=hash) == cached(URL) == path
    assert host.seen == [GET]


def test_a_damaged_or_outdated_file_is_fetched_again(host):
    get().write_bytes(WEIGHTS[:-1])
    assert get().read_bytes() == WEIGHTS
    assert len(host.seen) == 2
    host.files["/weights.example/models/net-1234.pth"] = OTHER
    assert get(hash=f"sha256:{hashlib.sha256(OTHER).hexdigest()}").read_bytes() == OTHER


@pytest.mark.parametrize("etag", ['"1"', 'W/"1"', None])
def test_a_cut_is_mended_with_the_rest(host, etag):
    host.etag = etag
    host.faults = [("cut", 300_000), ("cut", 100_000)]
    assert get().read_bytes() == WEIGHTS
    assert host.seen == [GET, f"{GET} bytes=300000-", f"{GET} bytes=400000-"]


def test_without_hash_and_etag_a_cut_starts_over(host):
    host.etag = None
    host.faults = [("cut", 300_000)]
    assert get(hash="").read_bytes() == WEIGHTS
    assert host.seen == [GET, GET]


def test_a_host_without_ranges_starts_over(host):
    host.ranges = False
    host.faults = [("cut", 300_000)]
    assert get().read_bytes() == WEIGHTS


def test_a_file_that_changes_between_two_tries(host, monkeypatch):
    host.faults = [("cut", 300_000)]

    def change(_: float) -> None:
        host.files["/weights.example/models/net-1234.pth"], host.etag = OTHER, '"2"'

    monkeypatch.setattr(time, "sleep", change)
    assert get(hash="").read_bytes() == OTHER


def test_the_next_call_goes_on_where_the_last_one_stopped(host):
    host.faults = [("cut", 100_000)] * 3
    assert "stopped at 300,000 of 700,000 bytes, in 3 tries" in refused()
    assert kept() == ["net-1234.pth.part"]
    host.seen.clear()
    assert_next_succeeds(host)
    assert host.seen == [f"{GET} bytes=300000-"]


@pytest.mark.parametrize("left", [OTHER[:1000], OTHER, WEIGHTS + b"more"], ids=len)
def test_leftovers_of_another_version(host, left):
    part = get().with_name("net-1234.pth.part")
    cached(URL).unlink()
    part.write_bytes(left)
    assert_next_succeeds(host)


def test_passing_trouble_passes(host):
    host.faults = [503, 429]
    assert get().read_bytes() == WEIGHTS


def test_places_are_readable_and_never_the_same(host, tmp_path):
    urls = [
        "https://h.example/a/net.h5",
        "https://h.example/a/net.h5?version=2",
        "https://h.example/a//net.h5",
        "https://h.example/a/../net.h5",
        "https://h.example/../../net.h5",
        "https://h.example:444/a/net.h5",
        "https://h.example/a/net h5",
    ]
    places = [place_of(url) for url in urls]
    folder = tmp_path / "cache/files"
    assert places[0] == folder / "h.example/a/net.h5"
    assert len(set(places)) == len(urls)
    assert all(place.resolve().is_relative_to(folder.resolve()) for place in places)
    assert {place.suffix for place in places[:-1]} == {".h5"}


SCRIPT = f"""
import sys
from zoo.pretrained.fetch import fetch
print("ready", flush=True)
sys.stdin.readline()
print(fetch({URL!r}, hash={SHA256!r}, desc="net.tag"))
"""


def test_two_processes_download_once(host, tmp_path):
    whole = threading.Event()
    host.faults = [("wait", whole)]
    command = [sys.executable, "-W", "error", "-c", SCRIPT]
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    both = [subprocess.Popen(command, **pipes) for _ in range(2)]
    for process in both:
        assert process.stdout.readline() == "ready\n"
    for process in both:
        process.stdin.write("\n")
        process.stdin.flush()
    while not host.seen:
        time.sleep(0.01)
    time.sleep(0.3)  # for the other one to come to the lock
    whole.set()
    for process in both:
        out, err = process.communicate(timeout=30)
        assert (Path(out.strip()).read_bytes(), err) == (WEIGHTS, "")  # no bar off a terminal
    assert host.seen == [GET]


# --- What the host does wrong --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (404, "is not there (404 Not Found): set ZOO_MIRROR to a copy, or put the file at "),
        (410, "is not there (410 Gone)"),
        (403, "is refused to us (403 Forbidden)"),
        (401, "is refused to us (401 Unauthorized)"),
        (418, "answers 418"),
        (500, "answers 500 Internal Server Error, in 3 tries: check the connection"),
        (429, "answers 429 Too Many Requests, in 3 tries"),
    ],
)
def test_statuses(host, status, words):
    host.faults = [status] * 5
    line = refused()
    assert words in line
    assert f"{host.address()}/weights.example/models/net-1234.pth" in line
    assert "net-1234.pth.part" not in line
    assert len(host.seen) == (3 if status in (500, 429) else 1)
    assert kept() == []
    assert_next_succeeds(host)


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_a_wrong_hash(host, algorithm):
    line = refused(hash=f"{algorithm}:00112233")
    got = hashlib.new(algorithm, WEIGHTS).hexdigest()[:8]
    assert f"gave a file of {algorithm} {got}, expected 00112233: nothing was kept" in line
    assert kept() == []
    assert_next_succeeds(host)


def test_a_wrong_size(host):
    assert "gave 700,000 bytes, expected about 800,000" in refused(hash="", size=800_000)
    assert kept() == []
    assert get(hash="", size=699_000).read_bytes() == WEIGHTS  # sizes are known roughly


@pytest.mark.parametrize("hash", [SHA256, ""])
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (PAGE, "a web page in place of weights, '<!DOCTYPE html> <html><title>"),
        (b"version https://git-lfs\n", "text in place of weights, 'version https://git-lfs'"),
        (b"", "an empty file"),
    ],
    ids=["page", "text", "nothing"],
)
def test_no_weights(host, hash, content, words):
    host.files["/weights.example/models/net-1234.pth"] = content
    assert f"gave {words}" in refused(hash=hash)
    assert kept() == []
    host.files["/weights.example/models/net-1234.pth"] = WEIGHTS
    assert_next_succeeds(host)


def test_nobody_there(host, monkeypatch):
    monkeypatch.setenv("ZOO_MIRROR", "http://127.0.0.1:9")
    assert "cannot be reached (Connection refused), in 3 tries" in refused()
    monkeypatch.setenv("ZOO_MIRROR", host.address())
    assert_next_succeeds(host)


def test_a_host_that_says_nothing(host, monkeypatch):
    monkeypatch.setattr(download, "_TIMEOUT", 0.05)
    monkeypatch.setattr(download, "_WAITS", ())
    end = threading.Event()
    host.faults = [("wait", end)]
    assert "stopped (timed out), in 1 tries" in refused()
    end.set()
    assert_next_succeeds(host)


# --- What is not allowed -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "source", ["http://weights.example/net.pth", "ftp://weights.example/net.pth", "net.pth", ""]
)
def test_only_https(host, source):
    assert f"got {source!r} to download, expected https://HOST/PATH or hf://" in refused(source)
    assert cached(source) is None
    assert host.seen == []


@pytest.mark.parametrize("mirror", ["http://mirror.example", "mirror.example", "file:///tmp"])
def test_a_mirror_that_could_be_tampered_with(host, monkeypatch, mirror):
    monkeypatch.setenv("ZOO_MIRROR", mirror)
    with pytest.raises(zoo.ZooError, match=r"ZOO_MIRROR: got '.*', expected https://\.\.\., or "):
        get()


def test_redirects(host):
    host.files["/other"] = WEIGHTS
    host.faults = [("redirect", "/other")]
    assert get().read_bytes() == WEIGHTS
    assert host.seen == [GET, "GET /other"]


@pytest.mark.parametrize("to", ["http://weights.example/a", "ftp://h/a", "http://127.0.0.1:9/a"])
def test_a_redirect_away_from_https(host, to):
    host.faults = [("redirect", to)]
    with pytest.raises(zoo.ZooError, match=f"net-1234.pth redirects to {to}, expected https$"):
        get()
    assert kept() == []
    assert_next_succeeds(host)


@pytest.mark.parametrize("switch", ["ZOO_OFFLINE", "HF_HUB_OFFLINE"])
def test_offline(host, monkeypatch, switch):
    monkeypatch.setenv(switch, "1")
    line = refused()
    assert f"the cache has nothing at {place_of(URL)}, and ZOO_OFFLINE or HF_HUB" in line
    monkeypatch.setenv(switch, "0")
    path = get()
    monkeypatch.setenv(switch, "1")
    assert get() == path
    path.write_bytes(OTHER)
    assert "the cache has a file of sha256 " in refused()
    assert host.seen == [GET]


# --- What this machine's disk does wrong ---------------------------------------------------------


def test_no_room_is_known_beforehand(host, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    line = refused()
    assert "(700,000 bytes to come, room for 1,000): expected ZOO_CACHE=a folder that" in line
    monkeypatch.undo()
    monkeypatch.setenv("ZOO_CACHE", line.partition("write to ")[2].partition("/files")[0])
    monkeypatch.setenv("ZOO_MIRROR", host.address())
    assert_next_succeeds(host)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 500 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=500k", "zoo-test", str(folder)]
    if os.geteuid() or not shutil.which("mount") or subprocess.run(mount, stderr=-3).returncode:
        pytest.skip("mounting a small disk takes root")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_disk_that_fills_up(host, monkeypatch, small_disk):
    monkeypatch.setenv("ZOO_CACHE", str(small_disk))
    assert "700,000 bytes to come, room for 5" in refused()
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**9))
    assert "(No space left on device): expected ZOO_CACHE=" in refused()
    assert kept() == []
    monkeypatch.setenv("ZOO_CACHE", str(small_disk.parent / "cache"))
    assert_next_succeeds(host)


def test_a_cache_that_is_a_file(host, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("ZOO_CACHE", str(tmp_path / "file"))
    assert "(Not a directory): expected ZOO_CACHE=a folder that can be written" in refused()


def test_a_cache_that_cannot_be_written(host, tmp_path):
    path = get()
    folder = path.parent
    folder.chmod(0o555)
    try:
        if os.access(folder, os.W_OK):
            pytest.skip("root may write everywhere")
        assert get() == path
        line = refused("https://weights.example/models/other.pth")
        assert f"cannot write to {folder} (Permission denied): expected ZOO_CACHE=" in line
    finally:
        folder.chmod(0o755)


def test_a_file_is_written_whole_or_not_at_all(host, tmp_path, monkeypatch):
    path = converted("net.tag-1234")
    assert path == tmp_path / "cache/converted/net.tag-1234.safetensors"
    with pytest.raises(FileNotFoundError):
        write(path, b"new")
    path.parent.mkdir(parents=True)
    write(path, b"old")

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


# --- Files that nobody published a hash of -------------------------------------------------------


def notes() -> list[Path]:
    return sorted(cache_folder().rglob("*.sha256"))


def test_the_first_download_is_held_on_to(host, monkeypatch):
    path = get(hash="")
    (note,) = notes()
    assert note.read_text() == SHA256.removeprefix("sha256:") + "\n"

    path.write_bytes(OTHER)  # changed here
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    assert "the cache has a file of sha256 " in refused(hash="")
    monkeypatch.delenv("ZOO_OFFLINE")
    assert get(hash="").read_bytes() == WEIGHTS
    assert host.seen == [GET, GET]

    path.unlink()  # changed there
    host.files["/weights.example/models/net-1234.pth"] = OTHER
    line = refused(hash="")
    assert f"expected {SHA256[7:15]} as at its first download: nothing was kept" in line
    assert line.endswith(f"or delete {note} if it is right")
    assert kept() == []
    note.unlink()
    assert get(hash="").read_bytes() == OTHER


@pytest.mark.parametrize("damage", [b"", b"\0" * 65, b"0" * 63, b"\xff" * 64])
def test_a_damaged_note_is_none(host, damage):
    get(hash="")
    (note,) = notes()
    note.write_bytes(damage)
    get(hash="")
    assert note.read_text() == SHA256.removeprefix("sha256:") + "\n"


def test_a_file_put_there_by_hand_is_the_first_one(host):
    path = place_of(URL)
    path.parent.mkdir(parents=True)
    path.write_bytes(OTHER)
    assert get(hash="").read_bytes() == OTHER
    assert host.seen == []
    path.write_bytes(WEIGHTS)
    assert "as at its first download" in refused(hash="")


def test_a_published_hash_goes_before_what_was_noted(host):
    get(hash="").write_bytes(OTHER)
    assert get(hash="sha256:" + hashlib.sha256(OTHER).hexdigest()).read_bytes() == OTHER


def test_a_download_that_no_reader_takes_is_forgotten(host):
    path = get(hash="")
    fetching.forget(URL)
    assert not path.exists()
    assert notes() == []


@pytest.mark.parametrize(
    "content", [WEIGHTS[:500_000], WEIGHTS + bytes(5_000_000)], ids=["cut", "padded"]
)
def test_another_size(host, content):
    host.files["/weights.example/models/net-1234.pth"] = content
    line = refused(hash="", size=700_000)
    assert "expected about 700,000" in line or "expected at most 4,875,000" in line
    assert kept() == notes() == []


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, gzip", "\x1b[31m"])
def test_bytes_that_are_not_the_file_s(host, encoding):
    host.faults = [("headers", {"Content-Encoding": encoding})]
    assert "encoded bytes, expected them as they are" in refused(hash="")
    assert kept() == []
    assert_next_succeeds(host)


def test_an_archive_s_own_compression_may_be_called_an_encoding(host):
    host.files["/weights.example/net.tgz"] = WEIGHTS
    host.faults = [("headers", {"Content-Encoding": "x-gzip"})]
    assert get("https://weights.example/net.tgz", hash="").read_bytes() == WEIGHTS


def test_the_md5_that_google_s_hosts_declare(host):
    def declared(content: bytes) -> dict[str, str]:
        digest = b64encode(hashlib.md5(content).digest()).decode()
        return {"X-Goog-Hash": f"crc32c=AAAAAA==,md5={digest}"}

    host.faults = [("headers", declared(OTHER)), ("headers", declared(WEIGHTS))]
    assert re.search("gave a file of md5 .*, expected .* as its host declares", refused(hash=""))
    assert kept() == notes() == []
    assert get(hash="").read_bytes() == WEIGHTS


# --- Hosts that lie, or do not end ---------------------------------------------------------------

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ([], "cannot be reached (Remote end closed connection without response), in 3 tries"),
        ([b"SSH-2.0-OpenSSH_9.9\r\n"], "cannot be reached (SSH-2.0-OpenSSH_9.9), in 3 tries"),
        ([b"HTTP/1.1 99999 ?\r\n\r\n"], "cannot be reached (HTTP/1.1 99999 ?), in 3 tries"),
        ([b"HTTP/1.1 418 \x1b[2Jtea\r\n\r\n"], "answers 418 ?[2Jtea: set"),
        ([b"HTTP/1.1 103 Early\r\n\r\n"], "answers 103 Early: set"),
        ([b"HTTP/1.1 304 Same\r\n\r\n"], "answers 304 Same: set"),
        ([b"HTTP/1.1 302 Gone\r\n\r\n"], "answers 302 Gone: set"),
        ([b"HTTP/1.1 204 Nothing\r\n\r\n"], "gives status 204, expected 200"),
        ([b"HTTP/1.1 206 Part\r\n\r\nabc\0"], "gives another part of the file than it was asked"),
        ([OK, b"Content-Length: -5\r\n\r\n"], "gives Content-Length '-5', expected a number"),
        ([OK, b"Content-Length: many\r\n\r\n"], "gives Content-Length 'many', expected a number"),
        ([OK, b"Content-Length: 5, 6\r\n\r\n"], "gives Content-Length '5, 6', expected a number"),
        ([OK, b"Content-Length: " + b"9" * 18 + b"\r\n\r\n"], "bytes, expected at most 4,875,000"),
        ([OK, b"Content-Length: " + b"9" * 99 + b"\r\n\r\n"], "expected a number of bytes"),
        ([OK, b"Content-Length: 9\r\n\r\n\0"], "stopped at 1 of 9 bytes, in 3 tries"),
        ([OK, b"A: b\r\n" * 101, b"\r\n"], "cannot be reached (got more than 100 headers), in 3"),
        ([OK, b"A: " + b"b" * 70_000], "cannot be reached (got more than 65536 bytes when reading"),
        ([CHUNKED, b"9\r\nabc"], "stopped (IncompleteRead"),
        ([CHUNKED, b"3\r\nab\0\r\n"], "stopped (IncompleteRead"),
        ([CHUNKED, b"no number\r\nabc"], "stopped (IncompleteRead"),
        ([CHUNKED, b"-5\r\nabc"], "stopped (IncompleteRead"),
        ([OK, b"\r\n\0", bytes(5_000_000)], "gives more than 4,875,000 bytes, expected at most"),
        ([CHUNKED, b"4f0000\r\n", bytes(0x4F0000)], "gives more than 4,875,000 bytes, expected"),
    ],
)
def test_answers_that_are_none(host, answer, words):
    host.faults = [("raw", answer)] * 3
    line = refused(hash="", size=700_000)
    assert words in line
    assert line.isprintable()
    assert kept() in ([], ["net-1234.pth.part"])
    assert place_of(URL).with_name("net-1234.pth.part").is_file() == ("stopped" in line)
    assert_next_succeeds(host)


def test_a_body_without_end(host, monkeypatch):
    for module in (fetching, download):
        monkeypatch.setattr(module, "UNKNOWN", 1_000_000)
    host.faults = [("raw", chain([OK, b"\r\n"], repeat(bytes(100_000))))]
    assert "gives more than 1,000,000 bytes, expected at most 1,000,000" in refused(hash="")
    assert kept() == []
    assert_next_succeeds(host)


def test_a_length_that_is_too_small(host):
    """A client takes as much as was declared; the rest shows in the size."""
    host.faults = [("headers", {"Content-Length": "100"})]
    assert "gave 100 bytes, expected about 700,000" in refused(hash="", size=700_000)
    assert_next_succeeds(host)


def drops(*pieces: bytes, drop: bytes = b"\x01") -> Iterator[bytes]:
    """Bytes, and then one every 20 ms."""
    yield from pieces
    while True:
        time.sleep(0.02)
        yield drop


@pytest.mark.parametrize(
    "answer",
    [
        drops(drop=b"H"),
        drops(OK, drop=b"A"),
        drops(OK, b"Content-Length: 700000\r\n\r\n"),
        drops(OK, b"\r\n"),
        drops(CHUNKED, drop=b"0"),
        chain([CHUNKED, b"0\r\n"], repeat(b"Trailer: more\r\n" * 100)),
        repeat(b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
    ],
    ids=["status", "header", "body", "open body", "chunk size", "trailers", "continue"],
)
def test_a_host_that_drips(host, monkeypatch, answer):
    monkeypatch.setattr(download, "_WINDOW", 0.2)
    monkeypatch.setattr(download, "_SLOWEST", 10_000)
    host.faults = [("raw", answer)]
    begun = time.monotonic()
    assert "gives less than 10,000 bytes a second: try again later, or set ZOO_" in refused()
    assert time.monotonic() - begun < 5
    assert len(host.seen) == 1
    monkeypatch.undo()
    monkeypatch.setenv("ZOO_CACHE", str(place_of(URL)))
    monkeypatch.setenv("ZOO_MIRROR", host.address())
    assert_next_succeeds(host)


def test_a_redirect_with_a_body_without_end(host):
    host.files["/other"] = WEIGHTS
    answer = [b"HTTP/1.1 302 Found\r\nLocation: /other\r\n\r\n"]
    host.faults = [("raw", chain(answer, repeat(bytes(100_000))))]
    assert get().read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    "to",
    [
        "https://",
        "https:///net.pth",
        "https://user:s3cret@weights.example/net.pth",
        "https://weights.example:port/net.pth",
        "https://[weights/net.pth",
        "https://weights.example\x1b[2J",
        "file:///etc/passwd",
        "data:,weights",
        "javascript:1",
        "net-1234.pth",  # itself
        "",
        "\xa0//",
    ],
)
def test_redirects_to_nonsense(host, monkeypatch, to):
    host.faults = [("redirect", to)] * 30
    with pytest.raises(zoo.ZooError) as info:
        get()
    assert str(info.value).isprintable()
    assert "s3cret" not in str(info.value)
    assert all(seen.startswith("GET /weights.example/models/") for seen in host.seen)
    assert kept() == []
    assert_next_succeeds(host)


# --- A login in an address -----------------------------------------------------------------------


def test_a_mirror_with_a_password(host, monkeypatch):
    monkeypatch.setenv("ZOO_MIRROR", host.address().replace("//", "//us%40er:s3cret@"))
    assert get().read_bytes() == WEIGHTS
    login = f"Basic {b64encode(b'us@er:s3cret').decode()}"
    assert host.logins == [login]

    cached(URL).unlink()
    host.files["/other"] = WEIGHTS
    host.faults = [("redirect", "/other")]
    assert get().read_bytes() == WEIGHTS
    assert host.logins == [login, login, None]  # it is for the mirror alone


@pytest.mark.parametrize("fault", [404, 403, 500, ("redirect", "http://h/"), ("cut", 9), None])
def test_no_error_shows_a_password(host, monkeypatch, fault):
    port = host.address() if fault else "http://127.0.0.1:9"
    monkeypatch.setenv("ZOO_MIRROR", port.replace("//", "//user:s3cret@"))
    host.faults = [fault] * 5
    with pytest.raises(zoo.ZooError) as info:
        get()
    assert "s3cret" not in "".join(traceback.format_exception(info.value))


@pytest.mark.parametrize(
    "mirror",
    [
        "http://user:s3cret@mirror.example",
        "user:s3cret@mirror.example",
        "https://user:s3cr@et@",
        "https://user:s3/cret@mirror.example",
        "https://user:s3cret@mirror.example:port",
        "https://user:s3cret@mirror.example/\r\nX-Header: more",
        "https://user:s3cret@[mirror",
    ],
)
def test_a_mirror_s_password_is_not_shown_when_its_address_is_wrong(host, monkeypatch, mirror):
    monkeypatch.setenv("ZOO_MIRROR", mirror)
    with pytest.raises(zoo.ZooError, match=r"ZOO_MIRROR: got '.*', expected https://") as info:
        get()
    shown = "".join(traceback.format_exception(info.value))
    assert "s3" not in shown.partition("ZooError: ")[2]
    assert "\n" not in str(info.value)


# --- Links in the cache --------------------------------------------------------------------------


@pytest.mark.parametrize("hash", [SHA256, ""])
@pytest.mark.parametrize("name", ["net-1234.pth.part", ".net-1234.pth.lock", "net-1234.pth"])
@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
def test_nothing_is_written_through_a_link(host, tmp_path, hash, name, link):
    mine = tmp_path / "mine"
    mine.write_bytes(b"mine\0")
    place = place_of(URL)
    place.parent.mkdir(parents=True)
    getattr(place.with_name(name), link)(mine)
    assert get(hash=hash, size=700_000).read_bytes() == WEIGHTS
    assert mine.read_bytes() == b"mine\0"
    assert not place.is_symlink()


def test_a_pipe_in_the_place_of_a_file(host):
    """Nobody waits for what comes out of it."""
    place = place_of(URL)
    note, kept = fetching._note(place), converted("net")
    fetching._note(kept).parent.mkdir(parents=True)
    for pipe in (place, place.with_name(f"{place.name}.part"), note, kept):
        pipe.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(pipe)
    assert get(hash="").read_bytes() == WEIGHTS
    write(fetching._note(kept), note.read_bytes())
    assert not fetching.as_noted(kept)


@pytest.mark.parametrize("name", ["net-1234.pth.part", ".net-1234.pth.lock", "net-1234.pth"])
def test_a_folder_in_the_place_of_a_file(host, name):
    folder = place_of(URL).with_name(name)
    folder.mkdir(parents=True)
    assert "cannot write to " in refused()
    folder.rmdir()
    assert_next_succeeds(host)


# --- The Hugging Face Hub ------------------------------------------------------------------------

HUB = "hf://owner/net/model.safetensors"
FILE = "/owner/net/resolve/main/model.safetensors"


@pytest.fixture
def hub(host, monkeypatch, tmp_path) -> Host:
    """Where the Hub is asked for; it has the file of `HUB`, declares its SHA-256, is logged in."""
    host.files = {FILE: WEIGHTS, FILE.replace("main", COMMIT): WEIGHTS}
    host.etag = f'"{SHA256[7:]}"'
    monkeypatch.setenv("HF_ENDPOINT", host.address() + "/")
    monkeypatch.setenv("HF_TOKEN", "hf_token")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return host


def put_in_the_hub_s_cache(content: bytes, etag: str) -> Path:
    """A file as the Hub's client, and so other programs, leave it there."""
    from huggingface_hub import constants

    folder = Path(constants.HF_HUB_CACHE) / "models--owner--net"
    file = folder / "snapshots" / COMMIT / "model.safetensors"
    for path, text in ((folder / "refs/main", COMMIT.encode()), (folder / "blobs" / etag, content)):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text)
    file.parent.mkdir(parents=True)
    file.symlink_to(f"../../blobs/{etag}")
    return file


def test_the_hub(hub, tmp_path, monkeypatch):
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    assert "the cache has nothing at " in refused(HUB, "")
    monkeypatch.delenv("ZOO_OFFLINE")
    assert hub.seen == []

    assert cached(HUB) is None
    path = get(HUB, "")
    assert path == tmp_path / f"cache/files/huggingface.co{FILE}" == cached(HUB)
    assert path.read_bytes() == WEIGHTS
    assert hub.seen == [f"GET {FILE}"]
    assert hub.logins == ["Bearer hf_token"]
    assert get(HUB, "") == get(HUB, SHA256) == path
    assert hub.seen == [f"GET {FILE}"]

    path.write_bytes(OTHER)
    assert get(HUB, "").read_bytes() == WEIGHTS
    assert len(hub.seen) == 2

    for source in (f"{HUB}@{COMMIT}", f"hf://owner/net@{COMMIT}/model.safetensors"):
        assert get(source, "").read_bytes() == WEIGHTS
    assert hub.seen[2:] == [f"GET {FILE.replace('main', COMMIT)}"]


@pytest.mark.parametrize("redirected", [True, False])
def test_a_file_that_the_hub_declares_otherwise(hub, redirected):
    """Large files come from another host, after the Hub has declared them."""
    hub.files |= {FILE: OTHER, "/large/file": OTHER}
    hub.faults = [("redirect", "/large/file")] if redirected else []
    line = refused(HUB, "")
    assert f"expected {SHA256[7:15]} as its host declares: nothing was kept" in line
    assert kept() == []
    if redirected:
        assert hub.logins == ["Bearer hf_token", None]


def test_what_other_programs_left_in_the_hub_s_cache(hub):
    file = put_in_the_hub_s_cache(WEIGHTS, SHA256[7:])
    assert cached(HUB) == get(HUB, "") == get(HUB, SHA256) == file
    assert hub.seen == []
    (file.parent / file.readlink()).write_bytes(OTHER)  # damaged since: another is made
    path = get(HUB, "")
    assert path != file
    assert path.read_bytes() == WEIGHTS
    assert get(HUB, "") == path
    assert hub.seen == [f"GET {FILE}"]


def test_a_damaged_file_in_the_hub_s_cache_alone(hub, monkeypatch):
    put_in_the_hub_s_cache(OTHER, SHA256[7:])
    monkeypatch.setenv("ZOO_OFFLINE", "1")
    assert "the cache has a file of sha256 " in refused(HUB, "")


@pytest.mark.parametrize(
    ("source", "fault", "words"),
    [
        (
            "hf://owner/none/a",
            None,
            "no repository owner/none, or a private one: for that set HF_T",
        ),
        ("hf://owner/net/b", None, "owner/net has no file b"),
        (f"hf://owner/net/b@{COMMIT}", None, f"owner/net has no file b at {COMMIT}"),
        ("hf://owner/net/c@v2", None, "owner/net has no revision v2: expected a branch, a tag or"),
        (HUB, 403, "owner/net is gated: ask for access on its page, then set HF_TOKEN or"),
        (HUB, 401, "is refused to us (401 Unauthorized): set HF_ENDPOINT to a copy, or put the"),
        (HUB, 503, "answers 503 Service Unavailable, in 3 tries: check the connection and"),
        (HUB, ("cut", 9), "stopped at 27 of 700,000 bytes, in 3 tries"),
        (HUB, 200, "gave an empty file"),
    ],
)
def test_what_the_hub_does_wrong(hub, source, fault, words):
    hub.faults = [fault] * 3
    assert words in refused(source, "")
    hub.faults = []
    assert get(HUB, "").read_bytes() == WEIGHTS


@pytest.mark.parametrize("endpoint", ["http://hub.example", "http://user:s3cret@hub.example"])
def test_a_hub_that_could_be_tampered_with(hub, monkeypatch, endpoint):
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    with pytest.raises(zoo.ZooError, match=r"HF_ENDPOINT: got '.*', expected https") as info:
        get(HUB, "")
    assert "s3cret" not in str(info.value)


def test_an_address_on_the_hub_without_a_file():
    for source in ("hf://owner/net", "hf://net.bin", "hf://", "hf://owner/a..b/c"):
        with pytest.raises(zoo.ZooError, match="expected hf://OWNER/REPO/FILE"):
            get(source)
