"""One download over HTTP: continued where it stopped, and given up where it is slow or too long."""

import os
import re
import shutil
import socket
import ssl
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from email.message import Message
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPMessage, HTTPResponse, HTTPSConnection
from pathlib import Path
from typing import IO, Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import (
    AbstractHTTPHandler,
    HTTPHandler,
    HTTPRedirectHandler,
    HTTPSHandler,
    Request,
    build_opener,
)

from ..errors import ZooError
from .addresses import cause, no_network, on_hub, safe, secure

_WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before the second try, the third ...
_TIMEOUT = 30.0  # seconds without a byte
_WINDOW = 60.0  # seconds; a host that sends less than _SLOWEST in that time is given up
_SLOWEST = 1000  # bytes a second
_CHUNK = 2**18  # bytes
UNKNOWN = 4 * 10**9  # bytes: the most that is downloaded of a file of unknown size
_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # statuses after which another try may work
SHA256 = re.compile(r"[0-9a-f]{64}")
_LOGIN = "set HF_TOKEN or `hf auth login`"


@contextmanager
def written(folder: Path, desc: str) -> Iterator[None]:
    """Turn disk errors into a `ZooError` of one line."""
    try:
        yield
    except OSError as error:
        raise ZooError(
            f"{desc}: cannot write to {folder} ({cause(error)}): "
            "expected ZOO_CACHE=a folder that can be written and has room"
        ) from error


def not_through_links(path: str, flags: int) -> int:
    """An opener for `open` that does not follow links."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


class _Transient(Exception):
    """A failure that may not happen again. Its text is what comes after "ADDRESS " in an error.

    Args:
      text: see above.
      away: whether it is so likely to happen again that a second try is enough.
    """

    def __init__(self, text: str, *, away: bool = False):
        super().__init__(text)
        self.away = away


class _Watch(threading.Thread):
    """Closes the connections of a download that receives almost nothing for `_WINDOW` seconds.

    A timeout of sockets does not: each byte that arrives restarts it.
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
    """A connection that a `_Watch` can close, from its start on."""

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
        """The request to the new address. Plain http only within one host that is `secure`."""
        here, there = urlsplit(req.full_url), urlsplit(newurl)
        same = (there.scheme, there.netloc) == (here.scheme, here.netloc)
        if not (same or there.scheme == "https") or "@" in there.netloc or not secure(newurl):
            shown = safe(newurl.partition("?")[0])
            raise ZooError(f"weights: {req.full_url} redirects to {shown}, expected https")
        self.headers.append(headers)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@dataclass
class Download:
    """The download of one file.

    Args:
      source: the published address, for errors.
      url: the address that is requested, perhaps a mirror's.
      login: the value of the header "Authorization"; "" for none.
      part: where the bytes go; kept when a download is interrupted.
      most: bytes that are accepted.
      desc: what is fetched, for the progress bar and for errors.
    """

    source: str
    url: str
    login: str
    part: Path
    most: int
    desc: str
    declared: str = field(default="", init=False)  # "algorithm:digest", as its host says

    @property
    def setting(self) -> str:
        """The environment variable that sets another host."""
        return "HF_ENDPOINT" if self.source.startswith("hf://") else "ZOO_MIRROR"

    def run(self, *, resume: bool) -> None:
        """Download the whole file, in a few tries.

        Args:
          resume: whether to keep the bytes of an earlier, interrupted download.

        Raises:
          ZooError: it cannot be had, or has more than `most` bytes; see `fetch.fetch`.
        """
        etag = ""  # as seen in this call: with it the server says whether the rest still belongs
        for tries, wait in enumerate((*_WAITS, None), 1):
            with written(self.part.parent, self.desc):
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
                except _Transient as error:
                    last = wait is None or (error.away and tries > 1)
                    if last and not watch.slow:
                        raise ZooError(
                            f"{self.desc}: {self.url} {error}, in {tries} tries: check "
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
            away = no_network(error.reason)
            raise _Transient(f"cannot be reached ({cause(error.reason)})", away=away) from error
        except (OSError, HTTPException) as error:
            raise _Transient(f"cannot be reached ({cause(error)})") from error
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
        status = f"{error.code} {cause(str(error.reason))}"
        if error.code == 416:  # more than all of it is here
            self.part.unlink(missing_ok=True)
            return _Transient(f"has less than was downloaded ({status})")
        if error.code in _TRANSIENT:
            return _Transient(f"answers {status}")
        if self.source.startswith("hf://"):
            repo, file, revision = on_hub(self.source)
            reasons = {
                "GatedRepo": f"{repo} is gated: ask for access on its page, then {_LOGIN}",
                "RepoNotFound": f"no repository {repo}, or a private one: for that {_LOGIN}",
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
        with written(self.part.parent, self.desc):
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
                written(self.part.parent, self.desc),
                open(self.part, "ab" if start else "wb", opener=not_through_links) as file,
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
            raise _Transient(f"stopped at {size:,} of {total:,} bytes")

    def _expected(self, response: HTTPResponse, start: int) -> tuple[int, int | None]:
        """Bytes of the part to keep, and the total if the host declares it, which may be wrong."""
        headers, name = response.headers, urlsplit(self.url).path.lower()
        encoding = headers.get("Content-Encoding", "identity").strip().lower() or "identity"
        # some hosts call an archive's own compression an encoding
        own = encoding in ("gzip", "x-gzip") and name.endswith((".gz", ".tgz"))
        if encoding != "identity" and not own:
            raise self._unfit(f"{safe(encoding)!r} encoded bytes", "them as they are")
        if response.status == 206:
            if not start or not headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                self.part.unlink(missing_ok=True)
                raise _Transient("gives another part of the file than it was asked for")
        elif response.status == 200:
            start = 0
        else:
            raise self._unfit(f"status {response.status}", "200")
        length = headers.get("Content-Length")
        if length is None or response.chunked:
            return start, None
        if not re.fullmatch(r"[0-9]{1,18}", length):
            raise self._unfit(f"Content-Length {safe(length)[:40]!r}", "a number of bytes")
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
        return f"sha256:{digest}" if SHA256.fullmatch(digest) else ""
    for value in headers.get_all("X-Goog-Hash", []):
        if md5 := re.search(r"md5=([A-Za-z0-9+/]{22}==)", value):
            return f"md5:{b64decode(md5[1]).hex()}"
    return ""


def _chunks(response: HTTPResponse, length: int | None) -> Iterator[bytes]:
    """The body as it arrives, up to `length`."""
    left = UNKNOWN if length is None else length
    try:
        while left and (chunk := response.read1(min(_CHUNK, left))):
            yield chunk
            if length is not None:
                left -= len(chunk)
    except (OSError, HTTPException, ValueError) as error:  # ValueError: ended while it was read
        raise _Transient(f"stopped ({cause(error)})") from error
