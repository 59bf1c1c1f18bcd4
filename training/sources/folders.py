"""Image files in class folders, on disk ("folder:PATH") or inside a tar file ("tar:FILE")."""

import contextlib
import lzma
import os
import tarfile
import weakref
import zlib
from collections.abc import Iterator, Mapping
from pathlib import Path

from zoo.errors import ZooError

from ..decode import Encoded
from .base import SUFFIXES, VAL_NAMES, Dataset, Part, Request, assemble

UNPACKED = 4 << 30  # bytes of pictures that a compressed archive may unpack to in memory


def open_folder(request: Request, path: str) -> Dataset:
    root = Path(path).expanduser()
    try:
        if not root.exists():
            raise ZooError(f"folder {root} does not exist")
        if not root.is_dir():
            raise ZooError(f"{root} is not a folder")
        train_root, val_root = _split_roots(root)
        train = _in_folder(train_root)
        val = _in_folder(val_root) if val_root else None
    except OSError as error:
        raise ZooError(f"cannot read folder {root}: {error.strerror or error}") from error
    return assemble(request, train, val)


def _split_roots(root: Path) -> tuple[Path, Path | None]:
    """The folders that hold the class folders of training and of validation, if that is apart."""
    names = _subfolders(root)
    only_splits = bool(names) and set(names) <= {"train", *VAL_NAMES}
    # "train" may be a class among others, next to "plane": then it holds pictures, not folders.
    if not (only_splits or ("train" in names and _subfolders(root / "train"))):
        return root, None
    if "train" not in names:
        raise ZooError(f"folder {root} has {names[0]}/ but no train/")
    val = next((name for name in VAL_NAMES if name in names), None)
    return root / "train", root / val if val else None


def _subfolders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if p.is_dir() and not p.name.startswith("."))


def _in_folder(root: Path) -> Part:
    """The image files at any depth below each subfolder, all sorted by name."""
    part = Part("folder", str(root), {})
    above = {_identity(folder) for folder in (root.resolve(), *root.resolve().parents)}
    for name in _subfolders(root):
        if _identity(root / name) in above:
            part.broken[str(root / name)] = "a link to a folder above it"
        else:
            part.classes[name] = sorted(_images(root / name, above, part.broken))
    part.loose = any(p.name.lower().endswith(SUFFIXES) for p in root.iterdir())
    return part


def _identity(folder: str | Path) -> tuple[int, int]:
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def _images(root: Path, above: set[tuple[int, int]], broken: dict[str, str]) -> Iterator[str]:
    """Files with a picture's suffix, from each folder once; `broken` gets what is none."""
    seen = set(above)
    folders = [str(root)]
    links: list[str] = []  # come last: a folder is found by its own path first
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        try:
            identity = _identity(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            broken[folder] = error.strerror or str(error)
            continue
        if identity in seen:
            broken[folder] = "a link to a folder that is read already"
            continue
        seen.add(identity)
        entries = [entry for entry in entries if not entry.name.startswith(".")]
        if not entries and folder.lower().endswith(SUFFIXES):
            broken[folder] = "a folder, not a file"
        for entry in entries:
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link to itself
                is_folder = False
            if is_folder:
                (links if entry.is_symlink() else folders).append(entry.path)
            elif entry.name.lower().endswith(SUFFIXES):
                yield entry.path


# --- tar:FILE -------------------------------------------------------------------------------------


# What damaged archives raise
DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)


class Archive:
    """The picture files of a tar file, by path.

    Of an uncompressed one only the places are kept, and a picture is read where it lies; the
    pictures of a compressed one are kept in memory. Nothing is ever written.

    Args:
        path: the tar file.

    Raises:
        ZooError: no tar file, a damaged one, or one that unpacks to more than `UNPACKED` bytes.
    """

    def __init__(self, path: Path):
        self.path = path
        self.broken: dict[str, str] = {}  # members that are no files
        self._data: dict[str, bytes] = {}
        self._places: dict[str, tuple[int, int]] = {}  # offset and size, bytes
        with tar_errors(path):
            plain = _is_plain_tar(path)
            with tarfile.open(path, "r:" if plain else "r:*") as tar:
                self._index(tar, plain)
            if plain:
                self._file = os.open(path, os.O_RDONLY)
                weakref.finalize(self, os.close, self._file)

    def _index(self, tar: tarfile.TarFile, plain: bool) -> None:
        unpacked = 0
        for member in tar:
            parts = [part for part in member.name.split("/") if part not in ("", ".")]
            if member.isdir() or any(part.startswith(".") for part in parts):
                continue
            name = "/".join(parts)
            if not name.lower().endswith(SUFFIXES):
                continue
            if not member.isreg() or member.issparse():
                self.broken[name] = "a link, not a file" if member.issym() else "not a plain file"
            elif plain:
                self._places[name] = (member.offset_data, member.size)
            else:
                unpacked += member.size
                if unpacked > UNPACKED:
                    raise ZooError(
                        f"{self.path} unpacks to more than {UNPACKED / 2**30:g} GiB of pictures:"
                        " decompress it, for an uncompressed .tar is read where it lies"
                    )
                with tar.extractfile(member) as file:  # type: ignore[union-attr]
                    self._data[name] = file.read()

    def __iter__(self) -> Iterator[str]:
        return iter(self._places or self._data)

    def __getitem__(self, name: str) -> Encoded:
        if name in self._data:
            data = self._data[name]
        else:
            offset, size = self._places[name]
            data = os.pread(self._file, size, offset)
        return Encoded(f"{self.path}/{name}", data)


@contextlib.contextmanager
def tar_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except DAMAGED as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise ZooError(f"cannot read archive {path}: {reason}") from error


def _is_plain_tar(path: Path) -> bool:
    try:
        tarfile.open(path, "r:").close()
    except tarfile.ReadError:
        return False
    return True


def open_tar(request: Request, path: str) -> Dataset:
    file = Path(path).expanduser()
    if not file.is_file():
        raise ZooError(f"archive {file} {'is not a file' if file.exists() else 'does not exist'}")
    archive = Archive(file)
    tree = {name: name.split("/") for name in sorted([*archive, *archive.broken])}
    # Most archives hold one folder that holds the rest.
    while tree and min(map(len, tree.values())) > 2 and len({p[0] for p in tree.values()}) == 1:
        tree = {name: parts[1:] for name, parts in tree.items()}
    tops = {parts[0] for parts in tree.values() if len(parts) > 1}
    only_splits = bool(tops) and tops <= {"train", *VAL_NAMES}
    if not only_splits and not any(p[0] == "train" and len(p) > 2 for p in tree.values()):
        return assemble(request, _in_archive(archive, tree), None, archive)
    if "train" not in tops:
        raise ZooError(f"archive {file} has {min(tops)}/ but no train/")
    val = next((name for name in VAL_NAMES if name in tops), None)
    return assemble(
        request,
        _in_archive(archive, tree, "train"),
        _in_archive(archive, tree, val) if val else None,
        archive,
    )


def _in_archive(archive: Archive, tree: Mapping[str, list[str]], top: str | None = None) -> Part:
    """The members below the folder `top`, by class.

    Args:
        tree: the path of each member, taken apart.
    """
    part = Part("archive", f"{archive.path}/{top}" if top else str(archive.path), {})
    for name, parts in tree.items():
        if top:
            if parts[0] != top:
                continue
            parts = parts[1:]
        if len(parts) < 2:
            part.loose = True
            continue
        files = part.classes.setdefault(parts[0], [])
        if name in archive.broken:
            part.broken[name] = archive.broken[name]
        else:
            files.append(name)
    part.classes = dict(sorted(part.classes.items()))
    return part
