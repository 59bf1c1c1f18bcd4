"""Published files: fetched once, checked before they are kept, and one line where that fails."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import zoo
import zoo.pretrained.fetch as fetching
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
    #     or ("cut", bytes), ("redirect", address), ("wait", event)
    seen: list[str] = field(default_factory=list)  # "METHOD path [range]"

    def address(self, scheme: str = "http") -> str:
        return f"{scheme}://127.0.0.1:{self.port}"


class Handler(BaseHTTPRequestHandler):
    host: Host

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        host, wanted = self.host, self.headers["Range"]
        host.seen.append(" ".join(filter(None, (self.command, self.path, wanted))))
        fault = host.faults.pop(0) if host.faults else None
        content = host.files.get(self.path)
        if fault is None and content is None:
            fault = 404
        if isinstance(fault, int):
            return self.refuse(fault)
        kind, value = fault or ("", None)
        if kind == "redirect":
            self.send_response(302)
            self.send_header("Location", value)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        assert content is not None
        start = 0
        if wanted and host.ranges and self.headers["If-Range"] in (None, host.etag):
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(content):
                return self.refuse(416)
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.send_header("Content-Length", str(len(content) - start))
        if host.etag:
            self.send_header("ETag", host.etag)
        self.send_header("X-Repo-Commit", COMMIT)  # the Hub's
        self.end_headers()
        if kind == "wait":
            value.wait(20)
        end = start + value if kind == "cut" else len(content)
        if body:
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
    monkeypatch.setattr(fetching, "_WAITS", (0.0, 0.0))
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
    """The files in the cache, but for locks."""
    files = fetching.cache_folder().rglob("*")
    return sorted(p.name for p in files if p.is_file() and p.suffix != ".lock")


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
    places = [fetching._place(url) for url in urls]
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
    assert "gave 700,000 bytes, expected 700,001" in refused(hash="", size=700_001)
    assert kept() == []


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
    monkeypatch.setattr(fetching, "_TIMEOUT", 0.05)
    monkeypatch.setattr(fetching, "_WAITS", ())
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
    assert f"the cache has nothing at {fetching._place(URL)}, and ZOO_OFFLINE or HF_HUB" in line
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
        fetching.write(path, b"new")
    path.parent.mkdir(parents=True)
    fetching.write(path, b"old")

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(KeyboardInterrupt):
        fetching.write(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(path.parent.iterdir()) == [path]


# --- The Hugging Face Hub ------------------------------------------------------------------------

HUB = "hf://owner/net/model.safetensors"

# Its client reads the environment when it is imported, so it lives in a process of its own. A line
# in is (source, arguments, environment), a line out the path of the file or the error.
WORKER = """
import json, os, sys, time
import zoo, zoo.pretrained.fetch as fetching
time.sleep = lambda seconds: None
for line in sys.stdin:
    source, arguments, env = json.loads(line)
    os.environ.update(env)
    try:
        there = fetching.cached(source)
        answer = [str(fetching.fetch(source, desc="net.tag", **arguments)), there and str(there)]
    except zoo.ZooError as error:
        answer = ["ZooError: " + str(error), None]
    for name in env:
        del os.environ[name]
    print(json.dumps(answer), flush=True)
"""

Ask = Callable[..., tuple[str, str | None]]


@pytest.fixture(scope="module")
def worker(server, tmp_path_factory) -> Iterator[subprocess.Popen[str]]:
    home = tmp_path_factory.mktemp("hub")
    env = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    env |= {"HF_ENDPOINT": f"http://127.0.0.1:{server.server_port}", "HF_HOME": str(home)}
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", WORKER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**env, "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        text=True,
    ) as process:
        yield process


@pytest.fixture
def ask(worker, serve) -> Ask:
    """`ask(source, hash=...)`: the path of the file, or the error; the file cached before it."""
    serve.files["/owner/net/resolve/main/model.safetensors"] = WEIGHTS
    serve.files[f"/owner/net/resolve/{COMMIT}/model.safetensors"] = WEIGHTS

    def ask(source: str = HUB, env: dict[str, str] | None = None, **known: Any):
        worker.stdin.write(json.dumps([source, known, env or {}]) + "\n")
        worker.stdin.flush()
        path, before = json.loads(worker.stdout.readline())
        assert "\n" not in path
        return path, before

    return ask


def test_the_hub(ask, serve):
    """In order, for the cache is one."""
    # cold and offline
    line, _ = ask(env={"ZOO_OFFLINE": "1"})
    assert f"net.tag: the Hub's cache has nothing for {HUB}, and ZOO_OFFLINE or HF_HUB_" in line
    assert serve.seen == []

    # cold, warm, and warm without a hash
    path, before = ask(hash=SHA256)
    assert before is None
    assert Path(path).read_bytes() == WEIGHTS
    file = "/owner/net/resolve/main/model.safetensors"
    assert serve.seen[-2:] == [f"HEAD {file}", f"GET {file}"]
    serve.seen.clear()
    assert ask(hash=SHA256) == ask(env={"ZOO_OFFLINE": "1"}) == (path, path)
    assert serve.seen == []
    assert ask() == (path, path)
    assert serve.seen == [f"HEAD {file}"]

    # by its commit, written in both places
    for source in (f"{HUB}@{COMMIT}", f"hf://owner/net@{COMMIT}/model.safetensors"):
        assert ask(source) == (path, path)
    assert serve.seen == [f"HEAD {file}"]

    # damaged since, first without a connection
    Path(path).write_bytes(OTHER)
    line, _ = ask(hash=SHA256, env={"HF_HUB_OFFLINE": "1"})
    assert "the Hub's cache has a file of sha256 " in line
    assert Path(ask(hash=SHA256)[0]).read_bytes() == WEIGHTS

    # another file than the catalogue's
    line, _ = ask(hash="sha256:00112233")
    assert "expected 00112233: name the @REVISION that has the right file" in line
    assert Path(ask(hash=SHA256)[0]).read_bytes() == WEIGHTS


@pytest.mark.parametrize(
    ("source", "faults", "words"),
    [
        (
            "owner/none/a",
            [],
            "no repository owner/none, or a private one: for that set HF_TOKEN or",
        ),
        ("owner/net/b", [], "owner/net has no file b"),
        (
            "owner/net/c@v2",
            [],
            "owner/net has no revision v2: expected a branch, a tag or a commit",
        ),
        ("owner/net/d", [403], "owner/net is gated: ask for access on its page, then set HF_TOKEN"),
        ("owner/net/e", [503] * 9, "the Hub cannot be reached ("),
        ("owner/net/f", [None] + [("cut", 9)] * 9, "the Hub failed ("),
        ("owner/net/g", [200], "the Hub cannot be reached ("),
    ],
    ids=["repository", "file", "revision", "gated", "down", "cut", "no hub"],
)
def test_what_the_hub_does_wrong(ask, serve, source, faults, words):
    path, _, revision = source.partition("@")
    file = f"/{path[:-2]}/resolve/{revision or 'main'}/{path[-1]}"
    if faults:
        serve.files[file] = OTHER
    serve.etag = f'"{path[-1]}"'
    serve.faults = faults
    line, _ = ask(f"hf://{source}")
    assert line.startswith(f"ZooError: net.tag: hf://{source}: {words}")
    serve.faults = []
    serve.files[file] = OTHER
    path, before = ask(f"hf://{source}")
    assert before is None
    assert Path(path).read_bytes() == OTHER


def test_an_address_on_the_hub_without_a_file():
    for source in ("hf://owner/net", "hf://net.bin", "hf://"):
        with pytest.raises(zoo.ZooError, match="expected hf://OWNER/REPO/FILE"):
            get(source)
