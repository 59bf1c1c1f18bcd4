"""Published weight files: downloaded once, verified, and kept in a cache.

For files on the Hugging Face Hub, the settings, the login and the cache of its own client are used.
These environment variables apply:

    ZOO_CACHE      the cache folder; ~/.cache/zoo without it
    ZOO_MIRROR     https://mirror/: https://host/path is taken from https://mirror/host/path;
                   https://user:password@mirror/ logs in
    ZOO_OFFLINE    1: use cached files only (HF_HUB_OFFLINE does the same)
    HF_ENDPOINT, HF_HOME, HF_TOKEN    the Hub's own: a mirror, its cache, a login

A file is checked when it is downloaded and whenever it is taken from the cache: against the
published hash, if there is one, or else against the digest of the first download, which is kept in
`digests`. A download is also checked against what the host declares: the Hub sends the SHA-256 of
large files, Google's hosts an MD5.
"""

import hashlib
import os
import re
import shutil
import socket
import ssl
import stat
import threading
import time
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from email.message import Message
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import (
    AbstractHTTPHandler,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    Request,
    build_opener,
)

from ..errors import ZooError
from ..paths import cache_folder, write

_WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before the second try, the third ...
_TIMEOUT = 30.0  # seconds without a byte
_WINDOW = 60.0  # seconds; a host that sends less than _SLOWEST in that time is given up
_SLOWEST = 1000  # bytes a second
_CHUNK = 2**18  # bytes
_UNKNOWN = 4 * 10**9  # bytes: the most that is downloaded of a file of unknown size
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that another try may cure
_SHA256 = re.compile(r"[0-9a-f]{64}")
_HUB = re.compile(r"hf://([^/@]+/[^/@]+)(?:@([^/@]+))?/([^@]+?)(?:@([^/@]+))?")
_HUB_LOGIN = "set HF_TOKEN or `hf auth login`"


def converted(key: str) -> Path:
    """The path in the cache for converted weights; it need not exist."""
    return cache_folder() / "converted" / f"{key}.safetensors"


def cached(source: str) -> Path | None:
    """The cached file of a source, unchecked; None if there is none.

    Only addresses have cached files: for anything else, such as a bare file name, it is None.
    """
    return next(_cached(source), None)


def fetch(source: str, *, hash: str = "", size: float | None = None, desc: str) -> Path:
    """The file of a published source, from a cache if it is there and correct, or else downloaded.

    A cached and correct file needs no request. An interrupted download continues where it stopped.
    If several processes ask for the same file, one of them downloads it.

    Args:
      source: "https://host/path", or "hf://owner/repo/file" on the Hugging Face Hub, with
        "@revision" behind the repository or the file.
      hash: "sha256:0676ba61": an algorithm of `hashlib` and the digest in hex, or its first digits,
        as torchvision puts them into file names; empty if it is unknown.
      size: bytes, roughly; None if it is unknown.
      desc: what is fetched, for the progress bar and for errors.

    Raises:
      ZooError: no such source; the file does not exist, is refused, is cut short, differs from what
        was published, declared or downloaded first, or is not cached while offline; the host cannot
        be reached, is slower than 1 kB/s or sends without end; the cache cannot be written.
    """
    if not source.startswith(("https://", "hf://")):
        raise ZooError(
            f"{desc}: got {source!r} to download, expected https://HOST/PATH or "
            "hf://OWNER/REPO/FILE; where there is none, get the file by hand and pass file="
        )
    path = _place(source)
    noted = "" if hash else _noted(path)
    what = _Published(hash or noted, size, first=bool(noted))
    faults = []
    for here in _cached(source):
        fault = _here(here, what)
        if fault is None:
            if not what.hash:
                with suppress(OSError):  # a cache that cannot be written to: it works without
                    note(path, of=here)
            return here
        faults.append(fault)
    if _offline():
        raise ZooError(
            f"{desc}: the cache has {(faults or ['nothing'])[0]} at {path}, and ZOO_OFFLINE or "
            f"HF_HUB_OFFLINE is set: expected {source} there, or a connection"
        )
    _from_host(source, path, what, desc)
    return path


def note(path: Path, *, of: Path | None = None) -> None:
    """Record the digest of a file in the cache, for `as_noted` at later loads.

    Args:
      path: the file's place in the cache.
      of: the file itself, where it lies elsewhere.

    Raises:
      OSError: the file cannot be read, or the cache not written.
    """
    kept = _note(path)
    kept.parent.mkdir(parents=True, exist_ok=True)
    write(kept, f"{_digest(of or path, 'sha256')}\n".encode())


def as_noted(path: Path) -> bool:
    """Whether a file exists and still has the digest that was recorded."""
    noted = _noted(path)
    return bool(noted) and _is_file(path) and _here(path, _Published(noted, None)) is None


def forget(source: str) -> None:
    """Delete the download of a source and its digest, if it turned out not to be weights."""
    path = _place(source)
    for file in (path, _note(path)):
        with suppress(OSError):
            file.unlink()


# --- What a file must be -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Published:
    """What is known of a file."""

    hash: str  # "algorithm:digest", or ""
    size: float | None  # bytes, roughly: of many files, what their parameters take
    first: bool = False  # `hash` is of the first download, for none was published

    @property
    def most(self) -> int:
        """Bytes; statistics of batch norm, auxiliary classifiers and names come on top."""
        return _UNKNOWN if self.size is None else int(1.25 * self.size) + 4_000_000

    def fault(self, path: Path, declared: str = "") -> str | None:
        """How a file differs from what was published, or declared by its host; None if equal."""
        fault = self._difference(path, declared)
        if fault or not self.hash:  # a hash that fits allows even text
            return _text_in(path) or fault
        return None

    def _difference(self, path: Path, declared: str) -> str | None:
        for known, whose in ((self.hash, ""), (declared, " as its host declares")):
            algorithm, _, digest = known.lower().partition(":")
            if digest and not (got := _digest(path, algorithm)).startswith(digest):
                whose = " as at its first download" if known == self.hash and self.first else whose
                return f"a file of {algorithm} {got[:8]}, expected {digest[:8]}{whose}"
        size = path.stat().st_size
        unknown = not (self.hash or declared)
        if unknown and self.size and not 0.9 * self.size <= size <= self.most:
            return f"{size:,} bytes, expected about {self.size:,.0f}"
        return None


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _text_in(path: Path) -> str | None:
    """The beginning of a file, if it is text or empty; None for binary files."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        return "an empty file"
    if any(byte < 32 and byte not in b"\t\n\r" for byte in head):
        return None
    text = " ".join(head.decode(errors="replace").split())
    kind = "a web page" if re.match(r"<!doctype html|<html", text, re.IGNORECASE) else "text"
    return f"{kind} in place of weights, {text[:40]!r}"


def _line(error: BaseException | str) -> str:
    """The reason of an error, for a line of ours: its first line, without number and file."""
    reason = getattr(error, "strerror", None) or str(error).strip()
    return _plain(reason.splitlines()[0] if reason else type(error).__name__)


def _plain(text: str) -> str:
    """Foreign text that is safe to show: no control codes, limited in length, no logins."""
    shown = "".join(c if c.isprintable() else "?" for c in text[:300])
    return re.sub(r"//[^/\s]*@", "//", shown)


# --- Where files are -----------------------------------------------------------------------------


def _cached(source: str) -> Iterator[Path]:
    """The files that caches have of a source: ours, then the Hub's."""
    if source.startswith(("https://", "hf://")):
        path = _place(source)
        if _is_file(path):
            yield path
    if source.startswith("hf://"):
        from huggingface_hub import try_to_load_from_cache

        repo, file, revision = _on_hub(source)
        there = try_to_load_from_cache(repo, file, revision=revision)
        if isinstance(there, str):  # or a sign: known not to exist
            yield Path(there)


def _is_file(path: Path) -> bool:
    """Whether the path is a regular file, not a pipe, which would block."""
    try:
        return path.is_file()
    except OSError:  # a folder on the way that is closed to us
        return False


def _here(path: Path, what: _Published) -> str | None:
    """How a cached file differs from what it should be. The Hub names its files by SHA-256."""
    try:
        name = path.readlink().name if path.is_symlink() else ""
        return what.fault(path, f"sha256:{name}" if _SHA256.fullmatch(name) else "")
    except OSError as error:
        return f"what cannot be read ({_line(error)})"


def _place(source: str) -> Path:
    """The path in the cache for an address: host and path, or a cleaned form with a hash."""
    url = source
    if source.startswith("hf://"):
        repo, name, revision = _on_hub(source)
        url = f"https://huggingface.co/{repo}/resolve/{revision or 'main'}/{name}"
    parts = urlsplit(url)
    if not parts.hostname:
        raise ZooError(f"weights: got {url!r}, expected https://HOST/PATH")
    names = f"{parts.netloc}{parts.path}".split("/")
    tidy = [re.sub(r"[^\w.+=%-]", "_", name) for name in names if name not in ("", ".", "..")]
    file = Path(*tidy)
    if url != f"https://{file.as_posix()}":
        digest = hashlib.sha256(url.encode()).hexdigest()[:8]
        file = file.with_name(f"{file.stem}-{digest}{file.suffix}")
    return cache_folder() / "files" / file


def _note(path: Path) -> Path:
    """Where the digest of a file in the cache is noted."""
    return cache_folder() / "digests" / f"{path.relative_to(cache_folder())}.sha256"


def _noted(path: Path) -> str:
    """The noted digest of a file, with "sha256:" before it; "" where none is noted."""
    kept, digest = _note(path), ""
    with suppress(OSError):
        if kept.is_file():
            with kept.open("rb") as file:
                digest = file.read(65).decode("ascii", "replace").strip()
    return f"sha256:{digest}" if _SHA256.fullmatch(digest) else ""


def _on_hub(source: str) -> tuple[str, str, str | None]:
    """Repository, file, revision."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    expected = "expected hf://OWNER/REPO/FILE, or .../FILE@REVISION"
    parts = _HUB.fullmatch(source)
    if parts is None:
        raise ZooError(f"weights: got {source!r}, {expected}")
    try:
        validate_repo_id(parts[1])
    except HFValidationError as error:
        raise ZooError(f"weights: got {source!r} ({_line(error)}), {expected}") from error
    return parts[1], parts[3], parts[2] or parts[4]


def _address(source: str) -> tuple[str, str]:
    """The address to request, and the value of the header that logs in there, or ""."""
    if source.startswith("hf://"):
        from huggingface_hub import constants, get_token, hf_hub_url

        repo, file, revision = _on_hub(source)
        endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/") or None
        url = hf_hub_url(repo, file, revision=revision, endpoint=endpoint)
        token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
        setting, login = "HF_ENDPOINT", f"Bearer {token}" if token else ""
    else:
        setting, login, url = "ZOO_MIRROR", "", source
        if mirror := os.environ.get("ZOO_MIRROR"):
            url = f"{mirror.rstrip('/')}/{source.removeprefix('https://')}"
    if not _secure(url):
        got = os.environ.get(setting, "")
        *_, shown = got.rpartition("@")  # without a password, wherever its address went wrong
        raise ZooError(f"{setting}: got {shown!r}, expected https://..., or http://localhost")
    user, at, _ = urlsplit(url).netloc.rpartition("@")
    if at:
        url = url.replace(f"{user}@", "", 1)
        login = f"Basic {b64encode(unquote(user).encode()).decode()}"
    return url, login


def _secure(url: str) -> bool:
    """Whether a response cannot be changed on its way: https, or this machine."""
    try:
        parts = urlsplit(url)
        _ = parts.port  # or ValueError
    except ValueError:
        return False
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    scheme = parts.scheme == "https" or (parts.scheme == "http" and local)
    return scheme and bool(parts.hostname) and re.search(r"[\0- \x7f]", url) is None


def _offline() -> bool:
    return any(
        os.environ.get(name, "").lower() not in ("", "0", "off", "no", "false")
        for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE")
    )


# --- This machine's disk -------------------------------------------------------------------------


@contextmanager
def _written(folder: Path, desc: str) -> Iterator[None]:
    """Turn disk errors into a `ZooError` of one line."""
    try:
        yield
    except OSError as error:
        raise ZooError(
            f"{desc}: cannot write to {folder} ({_line(error)}): "
            "expected ZOO_CACHE=a folder that can be written and has room"
        ) from error


@contextmanager
def _locked(path: Path, desc: str) -> Iterator[None]:
    """Let one process in at a time. The lock is released when its process ends."""
    from filelock import FileLock

    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file)
    with _written(path.parent, desc):
        _drop_link(file)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _drop_link(path: Path) -> None:
    """Remove anything but a regular file with one name: writing to it could change another file.

    Raises:
      OSError: it cannot be removed, as a folder cannot.
    """
    with suppress(FileNotFoundError):
        found = path.lstat()
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            path.unlink()


def _not_through_links(path: str, flags: int) -> int:
    """An opener for `open` that does not follow links."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


# --- Hosts ---------------------------------------------------------------------------------------


class _Passing(Exception):
    """A failure that another try may cure; its text continues "HOST ..."."""


def _from_host(source: str, path: Path, what: _Published, desc: str) -> None:
    """Download the file of a source to its place, and note its digest if none was published."""
    url, login = _address(source)
    with _written(path.parent, desc):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(None, f"{path.name} is a folder")
    with _locked(path, desc):
        known = replace(what, hash=what.hash or _noted(path))
        if path.is_file() and known.hash and known.fault(path) is None:
            return  # another process was quicker
        get = _Download(source, url, login, path.with_name(f"{path.name}.part"), what.most, desc)
        with _written(path.parent, desc):
            if not what.hash:
                get.part.unlink(missing_ok=True)  # nothing could tell whether the rest belongs
            _drop_link(get.part)
            leftover = get.part.exists()
        get.all(resume=bool(what.hash))
        fault = what.fault(get.part, get.declared)
        if fault and leftover:  # of another version, perhaps
            get.part.unlink()
            get.all(resume=True)
            fault = what.fault(get.part, get.declared)
        if fault:
            get.part.unlink()
            other = f", or delete {_note(path)} if it is right" if what.first else ""
            raise ZooError(
                f"{desc}: {url} gave {fault}: nothing was kept; try again later, "
                f"set {get.setting} to a copy, or put the right file at {path}{other}"
            )
        with _written(path.parent, desc):
            if not what.hash:
                note(path, of=get.part)
            get.part.replace(path)


class _Watch(threading.Thread):
    """Closes the connections of a download that receives almost nothing for `_WINDOW` seconds.

    A timeout alone would not do: every byte received restarts it.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.sockets: list[socket.socket] = []
        self.bytes = 0
        self.slow = False
        self._over = threading.Event()

    def __enter__(self) -> "_Watch":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def run(self) -> None:
        """Check the transfer at intervals."""
        seen = 0
        while not self._over.wait(_WINDOW):
            if self.bytes - seen < _SLOWEST * _WINDOW:
                self.slow = True
                for connection in self.sockets:
                    with suppress(OSError):  # closed already
                        socket.socket.shutdown(connection, socket.SHUT_RDWR)
                return
            seen = self.bytes


class _Http(HTTPConnection):
    """A connection that is watched from its start."""

    def __init__(self, host: str, *, watch: _Watch, **how: Any) -> None:
        super().__init__(host, **how)
        self.watch = watch

    def connect(self) -> None:
        """Connect."""
        super().connect()
        self.watch.sockets.append(self.sock)


class _Https(_Http, HTTPSConnection):
    """The same, encrypted."""


class _HttpHandler(HTTPHandler):
    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self.watch = watch

    def http_open(self, req: Request) -> HTTPResponse:
        """Open a plain address."""
        return self.do_open(partial(_Http, watch=self.watch), req)


class _HttpsHandler(HTTPSHandler):
    def __init__(self, watch: _Watch) -> None:
        AbstractHTTPHandler.__init__(self)  # its own reads all certificates, needed or not
        self.watch = watch

    def https_open(self, req: Request) -> HTTPResponse:
        """Open an encrypted address."""
        context = ssl.create_default_context()
        return self.do_open(partial(_Https, watch=self.watch, context=context), req)


class _Redirects(HTTPRedirectHandler):
    """Follows to secure addresses, and keeps what those on the way declare of the file."""

    def __init__(self) -> None:
        self.headers: list[Message] = []

    def http_error_302(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage
    ) -> IO[bytes] | None:
        """Follow without reading the body of the redirect, which urllib would read completely."""
        fp.close()
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, req: Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> Request | None:
        """The request to the new address. Plain http only within one host that is `_secure`."""
        here, there = urlsplit(req.full_url), urlsplit(newurl)
        same = (there.scheme, there.netloc) == (here.scheme, here.netloc)
        if not (same or there.scheme == "https") or "@" in there.netloc or not _secure(newurl):
            shown = _plain(newurl.partition("?")[0])
            raise ZooError(f"weights: {req.full_url} redirects to {shown}, expected https")
        self.headers.append(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass
class _Download:
    """The state of one download."""

    source: str
    url: str
    login: str
    part: Path
    most: int  # bytes
    desc: str
    declared: str = field(default="", init=False)  # "algorithm:digest", as its host says

    @property
    def setting(self) -> str:
        """The environment variable that sets another host."""
        return "HF_ENDPOINT" if self.source.startswith("hf://") else "ZOO_MIRROR"

    def all(self, *, resume: bool) -> None:
        """Download the whole file, in a few tries. `resume` continues with the bytes there are."""
        etag = ""  # as seen in this call: with it the server says whether the rest still belongs
        for wait in (*_WAITS, None):
            with _written(self.part.parent, self.desc):
                if not (resume or etag):
                    self.part.unlink(missing_ok=True)
                start = self.part.stat().st_size if self.part.exists() else 0
            request = Request(self.url, headers={"User-Agent": "jax-cnn-zoo"})
            request.add_header("Accept-Encoding", "identity")
            if self.login:
                request.add_unredirected_header("Authorization", self.login)
            if start:
                request.add_header("Range", f"bytes={start}-")
                if etag:
                    request.add_header("If-Range", etag)
            with _Watch() as watch:
                try:
                    with self._opened(request, watch) as response:
                        seen = response.headers.get("ETag", "")
                        etag = "" if seen.startswith("W/") else seen
                        self._transfer(response, start, watch)
                    if not watch.slow:  # else its end is ours
                        return
                except _Passing as error:
                    if wait is None and not watch.slow:
                        raise ZooError(
                            f"{self.desc}: {self.url} {error}, in {len(_WAITS) + 1} tries: check "
                            f"the connection and try again, or set {self.setting} to a copy"
                        ) from error
            if watch.slow:
                raise ZooError(
                    f"{self.desc}: {self.url} gives less than {_SLOWEST:,} bytes a second: "
                    f"try again later, or set {self.setting} to a copy"
                )
            assert wait is not None
            time.sleep(wait)

    def _opened(self, request: Request, watch: _Watch) -> HTTPResponse:
        redirects = _Redirects()
        opener = build_opener(redirects, _HttpHandler(watch), _HttpsHandler(watch))
        try:
            response: HTTPResponse = opener.open(request, timeout=_TIMEOUT)
        except HTTPError as error:
            error.close()
            raise self._refusal(error) from error
        except URLError as error:
            if isinstance(error.reason, ssl.SSLCertVerificationError):
                raise ZooError(
                    f"{self.desc}: {self.url} has no certificate that is trusted here "
                    f"({error.reason.verify_message}): set SSL_CERT_FILE to your authorities' file"
                ) from error
            raise _Passing(f"cannot be reached ({_line(error.reason)})") from error
        except (OSError, HTTPException) as error:
            raise _Passing(f"cannot be reached ({_line(error)})") from error
        except ZooError:
            raise
        except ValueError:  # its words may hold the login
            raise ZooError(
                f"{self.desc}: {self.url} cannot be asked for, or redirects to no address: "
                f"set {self.setting} to a copy, or put the file at {self.part.with_suffix('')}"
            ) from None
        hub = self.source.startswith("hf://")
        said = (_declared(headers, hub) for headers in (*redirects.headers, response.headers))
        self.declared = next(filter(None, said), self.declared)
        return response

    def _refusal(self, error: HTTPError) -> Exception:
        """The error for an HTTP status."""
        status = f"{error.code} {_line(str(error.reason))}"
        if error.code == 416:  # more than all of it is here
            self.part.unlink(missing_ok=True)
            return _Passing(f"has less than was downloaded ({status})")
        if error.code in _PASSING:
            return _Passing(f"answers {status}")
        if self.source.startswith("hf://"):
            repo, file, revision = _on_hub(self.source)
            reasons = {
                "GatedRepo": f"{repo} is gated: ask for access on its page, then {_HUB_LOGIN}",
                "RepoNotFound": f"no repository {repo}, or a private one: for that {_HUB_LOGIN}",
                "RevisionNotFound": f"{repo} has no revision {revision}: expected a branch, a tag "
                "or a commit",
                "EntryNotFound": f"{repo} has no file {file}"
                + (f" at {revision}" if revision else ""),
            }
            if reason := reasons.get(error.headers.get("X-Error-Code", "")):
                return ZooError(f"{self.desc}: {self.source}: {reason}")
        what = {404: "is not there", 410: "is not there", 401: "is refused to us"}
        what[403] = what[401]
        said = f"{what[error.code]} ({status})" if error.code in what else f"answers {status}"
        return ZooError(
            f"{self.desc}: {self.url} {said}: set {self.setting} to a copy, "
            f"or put the file at {self.part.with_suffix('')}"
        )

    def _transfer(self, response: HTTPResponse, start: int, watch: _Watch) -> None:
        """Append to the first `start` bytes of the part, which is kept if the transfer fails."""
        from tqdm import tqdm

        start, total = self._expected(response, start)
        with _written(self.part.parent, self.desc):
            free = shutil.disk_usage(self.part.parent).free
            if total and total - start > free:
                raise OSError(None, f"{total - start:,} bytes to come, room for {free:,}")
        bar = tqdm(
            total=total,
            initial=start,
            desc=self.desc,
            unit="B",
            unit_scale=True,
            disable=None,
            leave=False,
        )
        size = start
        try:
            with (
                bar,
                _written(self.part.parent, self.desc),
                open(self.part, "ab" if start else "wb", opener=_not_through_links) as file,
            ):
                for chunk in _chunks(response, total and total - start):
                    size += len(chunk)
                    if size > self.most:
                        raise self._too_much(f"more than {self.most:,} bytes")
                    file.write(chunk)
                    bar.update(len(chunk))
                    watch.bytes += len(chunk)
        except ZooError:
            with suppress(OSError):
                self.part.unlink()  # leave no disk full
            raise
        if total is not None and size < total:
            raise _Passing(f"stopped at {size:,} of {total:,} bytes")

    def _expected(self, response: HTTPResponse, start: int) -> tuple[int, int | None]:
        """Bytes of the part to keep, and the total if the host declares it, which may be wrong."""
        headers, name = response.headers, urlsplit(self.url).path.lower()
        encoding = headers.get("Content-Encoding", "identity").strip().lower() or "identity"
        # some hosts call an archive's own compression an encoding
        own = encoding in ("gzip", "x-gzip") and name.endswith((".gz", ".tgz"))
        if encoding != "identity" and not own:
            raise self._unfit(f"{_plain(encoding)!r} encoded bytes", "them as they are")
        if response.status == 206:
            if not start or not headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                self.part.unlink(missing_ok=True)
                raise _Passing("gives another part of the file than it was asked for")
        elif response.status == 200:
            start = 0
        else:
            raise self._unfit(f"status {response.status}", "200")
        length = headers.get("Content-Length")
        if length is None or response.chunked:
            return start, None
        if not re.fullmatch(r"[0-9]{1,18}", length):
            raise self._unfit(f"Content-Length {_plain(length)[:40]!r}", "a number of bytes")
        total = start + int(length)
        if total > self.most:
            raise self._too_much(f"{total:,} bytes")
        return start, total

    def _unfit(self, got: str, expected: str) -> ZooError:
        return ZooError(
            f"{self.desc}: {self.url} gives {got}, expected {expected}: try again later, "
            f"or set {self.setting} to a copy"
        )

    def _too_much(self, got: str) -> ZooError:
        return self._unfit(got, f"at most {self.most:,}")


def _declared(headers: Message, hub: bool) -> str:
    """The digest of the whole file that its host's headers hold: "algorithm:digest", or ""."""
    if hub:
        etag = headers.get("X-Linked-Etag") or headers.get("ETag") or ""
        digest = etag.removeprefix("W/").strip('"')
        return f"sha256:{digest}" if _SHA256.fullmatch(digest) else ""
    for value in headers.get_all("X-Goog-Hash", []):
        if found := re.search(r"md5=([A-Za-z0-9+/]{22}==)", value):
            return f"md5:{b64decode(found[1]).hex()}"
    return ""


def _chunks(response: HTTPResponse, length: int | None) -> Iterator[bytes]:
    """The body as it arrives, up to `length`."""
    left = _UNKNOWN if length is None else length
    try:
        while left and (chunk := response.read1(min(_CHUNK, left))):
            yield chunk
            if length is not None:
                left -= len(chunk)
    except (OSError, HTTPException, ValueError) as error:  # ValueError: ended while it was read
        raise _Passing(f"stopped ({_line(error)})") from error
