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
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ..errors import ZooError
from ..paths import cache_folder, write
from .addresses import address, cause, on_hub, place
from .download import SHA256, UNKNOWN, Download, written


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
    path = place(source)
    noted = "" if hash else _noted(path)
    what = _Published(hash or noted, size, first=bool(noted))
    faults = []
    for file in _cached(source):
        fault = _cached_fault(file, what)
        if fault is None:
            if not what.hash:
                with suppress(OSError):  # a cache that cannot be written to: it works without
                    note(path, of=file)
            return file
        faults.append(fault)
    if offline():
        raise ZooError(
            f"{desc}: the cache has {(faults or ['nothing'])[0]} at {path}, and ZOO_OFFLINE or "
            f"HF_HUB_OFFLINE is set: expected {source} there, or a connection"
        )
    _download(source, path, what, desc)
    return path


def note(path: Path, *, of: Path | None = None) -> None:
    """Record the digest of a file in the cache; later loads compare the file with it, `as_noted`.

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
    """Whether a file in the cache exists and still has the digest that `note` recorded."""
    noted = _noted(path)
    return bool(noted) and _is_file(path) and _cached_fault(path, _Published(noted, None)) is None


def forget(source: str) -> None:
    """Delete the download of a source and its digest, if it turned out not to be weights."""
    path = place(source)
    for file in (path, _note(path)):
        with suppress(OSError):
            file.unlink()


# --- what a file has to be ------------------------------------------------------------------------


@dataclass(frozen=True)
class _Published:
    """What is known of a published file before it is there."""

    hash: str  # "algorithm:digest", or ""
    size: float | None  # bytes, roughly: of many files, what their parameters take
    first: bool = False  # `hash` was not published: it is that of the first download

    @property
    def most(self) -> int:
        """The most bytes that it may have. `size` counts parameters; statistics come on top."""
        return UNKNOWN if self.size is None else int(1.25 * self.size) + 4_000_000

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


# --- the cache ------------------------------------------------------------------------------------


def _cached(source: str) -> Iterator[Path]:
    """The files that caches have of a source: ours, then the Hub's."""
    if source.startswith(("https://", "hf://")):
        path = place(source)
        if _is_file(path):
            yield path
    if source.startswith("hf://"):
        from huggingface_hub import try_to_load_from_cache

        repo, file, revision = on_hub(source)
        path_or_sign = try_to_load_from_cache(repo, file, revision=revision)
        if isinstance(path_or_sign, str):  # the sign says that the Hub has no such file
            yield Path(path_or_sign)


def _is_file(path: Path) -> bool:
    """Whether the path is a regular file, not a pipe, which would block."""
    try:
        return path.is_file()
    except OSError:  # a folder on the way that is closed to us
        return False


def _cached_fault(path: Path, what: _Published) -> str | None:
    """How a cached file differs from what it should be. The Hub names its files by SHA-256."""
    try:
        name = path.readlink().name if path.is_symlink() else ""
        return what.fault(path, f"sha256:{name}" if SHA256.fullmatch(name) else "")
    except OSError as error:
        return f"what cannot be read ({cause(error)})"


def hub_fault(path: Path) -> str | None:
    """How a file in the Hub's cache differs from what the Hub declared of it; None if it does not.

    Small files, which the Hub names by another digest, pass.
    """
    return _cached_fault(path, _Published("", None))


def _note(path: Path) -> Path:
    """The path of the digest that `note` records of a file in the cache."""
    return cache_folder() / "digests" / f"{path.relative_to(cache_folder())}.sha256"


def _noted(path: Path) -> str:
    """The recorded digest of a file, "sha256:..."; "" if none is recorded."""
    kept, digest = _note(path), ""
    with suppress(OSError):
        if kept.is_file():
            with kept.open("rb") as file:
                digest = file.read(65).decode("ascii", "replace").strip()
    return f"sha256:{digest}" if SHA256.fullmatch(digest) else ""


def offline() -> bool:
    """Whether nothing may be downloaded."""
    return any(
        os.environ.get(name, "").lower() not in ("", "0", "off", "no", "false")
        for name in ("ZOO_OFFLINE", "HF_HUB_OFFLINE")
    )


# --- one process at a time, and never through a link ----------------------------------------------


@contextmanager
def _locked(path: Path, desc: str) -> Iterator[None]:
    """Let one process in at a time. The lock is released when its process ends."""
    from filelock import FileLock

    file = path.with_name(f".{path.name}.lock")
    lock = FileLock(file)
    with written(path.parent, desc):
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
        status = path.lstat()
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            path.unlink()


# --- from a host into the cache -------------------------------------------------------------------


def _download(source: str, path: Path, what: _Published, desc: str) -> None:
    """Download the file of a source to its place, and note its digest if none was published."""
    url, login = address(source)
    with written(path.parent, desc):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.is_dir():
            raise IsADirectoryError(None, f"{path.name} is a folder")
    with _locked(path, desc):
        known = replace(what, hash=what.hash or _noted(path))
        if path.is_file() and known.hash and known.fault(path) is None:
            return  # another process was quicker
        download = Download(
            source, url, login, path.with_name(f"{path.name}.part"), what.most, desc
        )
        with written(path.parent, desc):
            if not what.hash:
                download.part.unlink(missing_ok=True)  # nothing could tell whether the rest belongs
            _drop_link(download.part)
            leftover = download.part.exists()
        download.run(resume=bool(what.hash))
        fault = what.fault(download.part, download.declared)
        if fault and leftover:  # of another version, perhaps
            download.part.unlink()
            download.run(resume=True)
            fault = what.fault(download.part, download.declared)
        if fault:
            download.part.unlink()
            other = f", or delete {_note(path)} if it is right" if what.first else ""
            raise ZooError(
                f"{desc}: {url} gave {fault}: nothing was kept; try again later, "
                f"set {download.setting} to a copy, or put the right file at {path}{other}"
            )
        with written(path.parent, desc):
            if not what.hash:
                note(path, of=download.part)
            download.part.replace(path)
