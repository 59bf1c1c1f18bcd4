"""Published weight files: downloaded once, checked before they get their name, kept in a cache.

Plain https addresses go through the downloader here, files on the Hugging Face Hub through its own
client and into its own cache. The environment says how:

    ZOO_CACHE      the cache folder; ~/.cache/zoo without it
    ZOO_MIRROR     https://mirror/: https://host/path is asked of https://mirror/host/path
    ZOO_OFFLINE    1: nothing but what is cached (HF_HUB_OFFLINE does the same)
    HF_ENDPOINT, HF_HOME, HF_TOKEN    the Hub's own: a mirror, its cache, a login
"""

import hashlib
import os
import re
import secrets
import shutil
import ssl
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import IO
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ..errors import ZooError

_WAITS = (0.5, 1.0, 2.0, 4.0)  # seconds before the second try, the third ...
_TIMEOUT = 30.0  # seconds without a byte
_CHUNK = 2**18  # bytes
_PASSING = (408, 425, 429, 500, 502, 503, 504)  # statuses that another try may cure
_HUB = re.compile(r"hf://([^/@]+/[^/@]+)(?:@([^/@]+))?/([^@]+?)(?:@([^/@]+))?")
_HUB_ADVICE = "check the connection and try again, or set HF_ENDPOINT"


def cache_folder() -> Path:
    """Where everything lies that can be had again: ZOO_CACHE, or ~/.cache/zoo."""
    return Path(os.environ.get("ZOO_CACHE") or "~/.cache/zoo").expanduser()


def converted(key: str) -> Path:
    """The file for weights that were converted already; it need not exist."""
    return cache_folder() / "converted" / f"{key}.safetensors"


def cached(source: str) -> Path | None:
    """The file of a source that is in the cache, whatever it holds; None if there is none.

    Anything but an address, such as the bare name of a file, is a source that has none.
    """
    if source.startswith("https://"):
        path = _place(source)
        return path if path.is_file() else None
    if not source.startswith("hf://"):
        return None

    from huggingface_hub import try_to_load_from_cache

    repo, file, revision = _on_hub(source)
    there = try_to_load_from_cache(repo, file, revision=revision)
    return Path(there) if isinstance(there, str) else None  # or a sign: known not to exist


def fetch(source: str, *, hash: str = "", size: int | None = None, desc: str) -> Path:
    """The file of a published source: out of the cache if it is there and right, else downloaded.

    A file whose hash is known and that is cached costs no request. A download that was cut goes on
    where it stopped. Of several processes that ask for one file, one downloads it.

    Args:
      source: "https://host/path", or "hf://owner/repo/file" on the Hugging Face Hub, with
        "@revision" behind the repository or the file.
      hash: "sha256:0676ba61": an algorithm of `hashlib` and the digest in hex, or its first digits,
        as torchvision puts them into file names; empty if it is unknown.
      size: bytes.
      desc: what is fetched, for the progress bar and for errors.

    Raises:
      ZooError: no such source; the file is not there, refused, cut short, not what was published or
        not cached while offline; the host cannot be reached; the cache cannot be written.
    """
    what = _Published(hash, size)
    if source.startswith("hf://"):
        return _from_hub(source, what, desc)
    if source.startswith("https://"):
        return _from_host(source, what, desc)
    raise ZooError(
        f"{desc}: got {source!r} to download, expected https://HOST/PATH or "
        "hf://OWNER/REPO/FILE; where there is none, get the file by hand and pass file="
    )


def write(path: Path, data: bytes) -> None:
    """Write a file that appears whole or not at all.

    Raises:
      OSError: the folder is not there, cannot be written or is full.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        part.write_bytes(data)
        part.replace(path)
    except BaseException:
        with suppress(OSError):
            part.unlink()
        raise


# --- What a file must be -------------------------------------------------------------------------


@dataclass(frozen=True)
class _Published:
    """What is known of a file: "algorithm:digest" or "", and bytes."""

    hash: str
    size: int | None

    def fault(self, path: Path) -> str | None:
        """How a file differs from what was published; None if it does not."""
        fault = self._difference(path)
        if fault or not self.hash:  # a hash that fits allows even text
            return _text_in(path) or fault
        return None

    def _difference(self, path: Path) -> str | None:
        if (size := path.stat().st_size) != (self.size or size):
            return f"{size:,} bytes, expected {self.size:,}"
        algorithm, _, digest = self.hash.lower().partition(":")
        if digest:
            with path.open("rb") as file:
                got = hashlib.file_digest(file, algorithm).hexdigest()
            if not got.startswith(digest):
                return f"a file of {algorithm} {got[:8]}, expected {digest[:8]}"
        return None


def _text_in(path: Path) -> str | None:
    """What a file begins with, if that is text or nothing; None for binary files."""
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
    return reason.splitlines()[0] if reason else type(error).__name__


# --- Plain hosts ---------------------------------------------------------------------------------


class _Passing(Exception):
    """A failure that another try may cure; its text continues "HOST ..."."""


def _from_host(source: str, what: _Published, desc: str) -> Path:
    path = _place(source)
    fault = what.fault(path) if path.is_file() else "nothing"
    if fault is None:
        return path
    if _offline():
        raise ZooError(
            f"{desc}: the cache has {fault} at {path}, and ZOO_OFFLINE or HF_HUB_OFFLINE is set: "
            f"expected {source} there, or a connection"
        )
    url = _mirrored(source)
    with _written(path.parent, desc):
        path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(path, desc):
        if path.is_file() and what.fault(path) is None:  # another process was quicker
            return path
        part = path.with_name(f"{path.name}.part")
        with _written(path.parent, desc):
            if not what.hash:
                part.unlink(missing_ok=True)  # nothing could tell whether the rest belongs to it
            leftover = part.exists()
        _download(url, part, desc, resume=bool(what.hash))
        fault = what.fault(part)
        if fault and leftover:  # of another version, perhaps
            part.unlink()
            _download(url, part, desc, resume=True)
            fault = what.fault(part)
        if fault:
            part.unlink()
            raise ZooError(
                f"{desc}: {url} gave {fault}: nothing was kept; try again later, "
                f"set ZOO_MIRROR to a copy, or put the right file at {path}"
            )
        with _written(path.parent, desc):
            part.replace(path)
    return path


def _place(url: str) -> Path:
    """The cached file of an address: host and path as they are, or tidied and with a hash."""
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


def _mirrored(url: str) -> str:
    """The address to ask: `url` itself, or below ZOO_MIRROR."""
    mirror = os.environ.get("ZOO_MIRROR")
    if not mirror:
        return url
    if not _secure(mirror):
        raise ZooError(f"ZOO_MIRROR: got {mirror!r}, expected https://..., or http://localhost")
    return f"{mirror.rstrip('/')}/{url.removeprefix('https://')}"


def _secure(url: str) -> bool:
    """Whether what it gives cannot be changed on the way: https, or this machine."""
    parts = urlsplit(url)
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    return bool(parts.hostname) and (parts.scheme == "https" or (parts.scheme == "http" and local))


def _offline() -> bool:
    return any(
        os.environ.get(name, "").lower() not in ("", "0", "off", "no", "false")
        for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE")
    )


@contextmanager
def _written(folder: Path, desc: str) -> Iterator[None]:
    """Turn what goes wrong on the disk into one line."""
    try:
        yield
    except OSError as error:
        raise ZooError(
            f"{desc}: cannot write to {folder} ({_line(error)}): "
            "expected ZOO_CACHE=a folder that can be written and has room"
        ) from error


@contextmanager
def _locked(path: Path, desc: str) -> Iterator[None]:
    """One process at a time; the lock ends with the process that holds it."""
    from filelock import FileLock

    lock = FileLock(path.with_name(f".{path.name}.lock"))
    with _written(path.parent, desc):
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


class _SecureRedirects(HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):
        """The request to follow with; http is followed only from one mirror address to another."""
        here, there = urlsplit(req.full_url), urlsplit(newurl)
        if there.scheme != "https" and (there.scheme, there.netloc) != (here.scheme, here.netloc):
            fp.close()
            raise ZooError(f"weights: {req.full_url} redirects to {newurl}, expected https")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(url: str, part: Path, desc: str, *, resume: bool) -> None:
    """Get all of `url` into `part`, in a few tries; `resume` is whether to go on with its bytes."""
    etag = ""  # as seen in this call: with it the server says whether the rest still belongs
    for wait in (*_WAITS, None):
        with _written(part.parent, desc):
            if not (resume or etag):
                part.unlink(missing_ok=True)
            start = part.stat().st_size if part.exists() else 0
        headers = {"User-Agent": "jax-cnn-zoo"}
        if start:
            headers["Range"] = f"bytes={start}-"
            if etag:
                headers["If-Range"] = etag
        try:
            with _opened(Request(url, headers=headers), part, desc) as response:
                seen = response.headers.get("ETag", "")
                etag = "" if seen.startswith("W/") else seen
                if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
                    start = 0
                _transfer(response, part, start, desc)
            return
        except _Passing as error:
            if wait is None:
                raise ZooError(
                    f"{desc}: {url} {error}, in {len(_WAITS) + 1} tries: check the connection and "
                    "try again, or set ZOO_MIRROR to a copy"
                ) from error
            time.sleep(wait)


def _opened(request: Request, part: Path, desc: str) -> HTTPResponse:
    url = request.full_url
    try:
        return build_opener(_SecureRedirects).open(request, timeout=_TIMEOUT)
    except HTTPError as error:
        error.close()
        status = f"{error.code} {error.reason}"
        if error.code == 416:  # more than all of it is here
            part.unlink(missing_ok=True)
            raise _Passing(f"has less than was downloaded ({status})") from error
        if error.code in _PASSING:
            raise _Passing(f"answers {status}") from error
        by_hand = f"set ZOO_MIRROR to a copy, or put the file at {part.with_suffix('')}"
        if error.code in (404, 410):
            raise ZooError(f"{desc}: {url} is not there ({status}): {by_hand}") from error
        if error.code in (401, 403):
            raise ZooError(f"{desc}: {url} is refused to us ({status}): {by_hand}") from error
        raise ZooError(f"{desc}: {url} answers {status}: {by_hand}") from error
    except URLError as error:
        if isinstance(error.reason, ssl.SSLCertVerificationError):
            raise ZooError(
                f"{desc}: {url} has no certificate that is trusted here "
                f"({error.reason.verify_message}): set SSL_CERT_FILE to your authorities' file"
            ) from error
        raise _Passing(f"cannot be reached ({_line(error.reason)})") from error
    except (OSError, HTTPException) as error:
        raise _Passing(f"cannot be reached ({_line(error)})") from error


def _transfer(response: HTTPResponse, part: Path, start: int, desc: str) -> None:
    """Append to the first `start` bytes of `part`; it stays if the network fails, for the rest."""
    from tqdm import tqdm

    length = response.headers.get("Content-Length")
    total = start + int(length) if length else None
    with _written(part.parent, desc):
        free = shutil.disk_usage(part.parent).free
        if total and total - start > free:
            raise OSError(None, f"{total - start:,} bytes to come, room for {free:,}")
    bar = tqdm(
        total=total,
        initial=start,
        desc=desc,
        unit="B",
        unit_scale=True,
        disable=None,
        leave=False,
    )
    try:
        with bar, _written(part.parent, desc), part.open("ab" if start else "wb") as file:
            for chunk in _chunks(response):
                file.write(chunk)
                bar.update(len(chunk))
    except ZooError:
        with suppress(OSError):
            part.unlink()  # leave no disk full
        raise
    if total is not None and (size := part.stat().st_size) < total:
        raise _Passing(f"stopped at {size:,} of {total:,} bytes")


def _chunks(response: IO[bytes]) -> Iterator[bytes]:
    try:
        while chunk := response.read(_CHUNK):
            yield chunk
    except (OSError, HTTPException) as error:
        raise _Passing(f"stopped ({_line(error)})") from error


# --- The Hugging Face Hub ------------------------------------------------------------------------


def _on_hub(source: str) -> tuple[str, str, str | None]:
    """Repository, file, revision."""
    parts = _HUB.fullmatch(source)
    if parts is None:
        raise ZooError(
            f"weights: got {source!r}, expected hf://OWNER/REPO/FILE, or .../FILE@REVISION"
        )
    return parts[1], parts[3], parts[2] or parts[4]


def _from_hub(source: str, what: _Published, desc: str) -> Path:
    """Through the Hub's client. A wrong file stays in its cache, but is never taken from there."""
    here = cached(source)
    fault = what.fault(here) if here else None
    if here and not fault and (what.hash or _offline()):
        return here
    if _offline():  # the client would still ask the Hub for this and that
        raise ZooError(
            f"{desc}: the Hub's cache has {fault or 'nothing'} for {source}, and ZOO_OFFLINE or "
            "HF_HUB_OFFLINE is set: expected it there, or a connection"
        )
    path = _hub_download(source, desc, again=fault is not None)
    if fault := what.fault(path):
        raise ZooError(
            f"{desc}: {source} gave {fault}: name the @REVISION that has the right file, "
            "or try again later"
        )
    return path


def _hub_download(source: str, desc: str, *, again: bool) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub import errors as hub

    repo, file, revision = _on_hub(source)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", "Not enough free disk space")
            return Path(hf_hub_download(repo, file, revision=revision, force_download=again))
    except hub.GatedRepoError as error:
        why = f"{repo} is gated: ask for access on its page, then set HF_TOKEN or `hf auth login`"
        cause: Exception = error
    except hub.RepositoryNotFoundError as error:
        why = f"no repository {repo}, or a private one: for that set HF_TOKEN or `hf auth login`"
        cause = error
    except hub.RevisionNotFoundError as error:
        why = f"{repo} has no revision {revision}: expected a branch, a tag or a commit"
        cause = error
    except hub.LocalEntryNotFoundError as error:
        why = f"the Hub cannot be reached ({_line(error.__cause__ or error)}): {_HUB_ADVICE}"
        cause = error
    except hub.EntryNotFoundError as error:
        why = f"{repo} has no file {file}" + (f" at {revision}" if revision else "")
        cause = error
    except hub.HFValidationError as error:
        why = f"{_line(error)}: expected hf://OWNER/REPO/FILE"
        cause = error
    except (UserWarning, hub.HTTPError, OSError, RuntimeError) as error:  # the last: hf_xet's
        if isinstance(error, UserWarning) or (isinstance(error, OSError) and error.errno):
            why = (
                f"cannot write to {constants.HF_HUB_CACHE} ({_line(error)}): "
                "expected HF_HOME=a folder that can be written and has room"
            )
        else:
            why = f"the Hub failed ({_line(error)}): {_HUB_ADVICE}"
        cause = error
    raise ZooError(f"{desc}: {source}: {why}") from cause
