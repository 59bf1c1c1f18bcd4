"""Image files in class folders, on disk ("folder:PATH") or inside a tar file ("tar:FILE")."""

import contextlib
import lzma
import os
import tarfile
import weakref
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from zoo.errors import ZooError
from zoo.reading import begins_as_picture, is_hidden, is_picture, no_file, suffix_of
from zoo.text import plain, reason

from ..decode import Encoded
from .base import Dataset, Request
from .classes import Part, assemble
from .splits import beside, split_folders, used_splits

UNPACKED = 4 << 30  # bytes of pictures that a compressed archive may unpack to in memory


def open_folder(request: Request, path: str) -> Dataset:
    """A folder of class folders, or of splits that hold them; see `open_dataset`."""
    root = Path(path).expanduser()
    shown = plain(str(root))
    try:
        if not root.exists():
            raise ZooError(f"folder {shown} does not exist")
        if not root.is_dir():
            raise ZooError(f"{shown} is not a folder")
        names = _subfolders(root)
        splits = split_folders(
            f"folder {shown}", names, lambda name: bool(_subfolders(root / name))
        )
        if not splits:
            return assemble(request, {"train": _in_folder(root)})
        used = used_splits(request, splits)
        parts = {split: _in_folder(root / splits[split]) for split in used}
        _count_loose(parts["train"], root)
    except (OSError, ValueError) as error:  # ValueError: no name that a folder can have
        if isinstance(error, ZooError):
            raise
        raise ZooError(
            f"cannot read folder {shown}: {getattr(error, 'strerror', None) or error}"
        ) from error
    return assemble(request, parts, left_out=beside(splits, names, used))


def _subfolders(root: Path) -> list[str]:
    return sorted(p.name for p in root.iterdir() if not is_hidden(p.name) and p.is_dir())


def _in_folder(root: Path) -> Part:
    """The image files at any depth below each subfolder, all sorted by name."""
    part = Part("folder", str(root), {})
    above = {_identity(folder) for folder in (root.resolve(), *root.resolve().parents)}
    for name in _subfolders(root):
        if _identity(root / name) in above:
            part.broken[str(root / name)] = "a link to a folder above it"
        else:
            files = sorted(_images(root / name, above, part))
            start = len(str(root / name)) + 1
            deeper = (path[start:].partition(os.sep) for path in files)
            part.classes[name] = files
            part.inside[name] = {first for first, _, rest in deeper if rest}
    _count_loose(part, root)
    return part


def _count_loose(part: Part, root: Path) -> None:
    """Count the files in a folder that should hold only folders."""
    for path in root.iterdir():
        if is_hidden(path.name) or path.is_dir():
            continue
        if is_picture(path.name):
            part.loose += 1
        else:
            part.others[suffix_of(path.name)] += 1


def _identity(folder: str | Path) -> tuple[int, int]:
    status = Path(folder).stat()
    return status.st_dev, status.st_ino


def _images(root: Path, above: set[tuple[int, int]], part: Part) -> Iterator[str]:
    """The pictures, from each folder once; `part` notes other files and unreadable folders."""
    seen = set(above)
    folders = [str(root)]
    links: list[str] = []  # come last: a folder is found by its own path first
    while folders or links:
        folder = folders.pop() if folders else links.pop()
        try:
            identity = _identity(folder)
            entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
        except OSError as error:
            part.broken[folder] = error.strerror or str(error)
            continue
        if identity in seen:
            part.broken[folder] = "a link to a folder that is read already"
            continue
        seen.add(identity)
        entries = [entry for entry in entries if not is_hidden(entry.name)]
        if not entries and is_picture(folder):
            part.broken[folder] = "a folder, not a file"
        for entry in entries:
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link to itself
                is_folder = False
            if is_folder:
                (links if entry.is_symlink() else folders).append(entry.path)
            elif is_picture(entry.name) or (not suffix_of(entry.name) and begins_like(entry.path)):
                yield entry.path
            else:
                part.others[suffix_of(entry.name)] += 1


def begins_like(path: str) -> bool:
    """Whether a file without a suffix is a picture, judged by its first bytes."""
    if no_file(path):
        return False
    try:
        with Path(path).open("rb") as file:
            return begins_as_picture(file.read(16))
    except OSError:
        return False


# --- tar:FILE -------------------------------------------------------------------------------------


# What damaged archives raise
DAMAGED = (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError)


class Archive:
    """The picture files of a tar file, by path.

    In an uncompressed file, pictures are read in place, and only their offsets are kept. The
    pictures of a compressed file are kept in memory. Nothing is written to disk.

    Args:
        path: the tar file.

    Raises:
        ZooError: the file is not a tar file, is damaged, or unpacks to more than `UNPACKED` bytes.
    """

    def __init__(self, path: Path):
        self.path = path
        self.broken: dict[str, str] = {}  # members that are no files
        self.others: list[str] = []  # files that are no pictures
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
            if member.isdir() or any(map(is_hidden, parts)):
                continue
            name = "/".join(parts)
            if not is_picture(name) and not (
                not suffix_of(name) and member.isreg() and begins_as_picture(_start(tar, member))
            ):
                self.others.append(name)
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

    def size(self, name: str) -> int:
        """Bytes of a member."""
        return self._places[name][1] if name in self._places else len(self._data[name])

    def __getitem__(self, name: str) -> Encoded:
        if name in self._data:
            data = self._data[name]
        else:
            offset, size = self._places[name]
            data = os.pread(self._file, size, offset)
        return Encoded(f"{self.path}/{name}", data)


def _start(tar: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    with tar.extractfile(member) as file:  # type: ignore[union-attr]
        return file.read(16)


@contextlib.contextmanager
def tar_errors(path: Path) -> Iterator[None]:
    """Turn the errors of a damaged tar file into a `ZooError` that names it."""
    try:
        yield
    except DAMAGED as error:
        raise ZooError(f"cannot read archive {path}: {reason(error)}") from error


def _is_plain_tar(path: Path) -> bool:
    try:
        tarfile.open(path, "r:").close()
    except tarfile.ReadError:
        return False
    return True


def open_tar(request: Request, path: str) -> Dataset:
    """A tar file of class folders, read as `open_folder` reads a folder."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise ZooError(f"archive {file} {'is not a file' if file.exists() else 'does not exist'}")
    archive = Archive(file)
    tree = {name: name.split("/") for name in sorted([*archive, *archive.broken])}
    # Most archives hold one folder that holds the rest.
    cut = 0
    while tree and min(map(len, tree.values())) > 2 and len({p[0] for p in tree.values()}) == 1:
        tree = {name: parts[1:] for name, parts in tree.items()}
        cut += 1
    others = [name.split("/")[cut:] for name in archive.others]
    names = sorted({parts[0] for parts in tree.values() if len(parts) > 1})
    deep = {parts[0] for parts in tree.values() if len(parts) > 2}
    splits = split_folders(f"archive {file}", names, deep.__contains__)
    if not splits:
        return assemble(request, {"train": _in_archive(archive, tree, others)}, archive)
    used = used_splits(request, splits)
    by_split = {split: _in_archive(archive, tree, others, splits[split]) for split in used}
    return assemble(request, by_split, archive, beside(splits, names, used))


def _in_archive(
    archive: Archive,
    tree: Mapping[str, list[str]],
    others: Iterable[list[str]],
    top: str | None = None,
) -> Part:
    """The members below the folder `top`, by class.

    Args:
        archive: what the members are in.
        tree: the path of each member, taken apart.
        others: the paths of those that are no pictures.
        top: None: the archive itself holds the class folders.
    """
    part = Part("archive", f"{archive.path}/{top}" if top else str(archive.path), {})
    for name, parts in tree.items():
        if top:
            if parts[0] != top:
                continue
            parts = parts[1:]
        if len(parts) < 2:
            part.loose += 1
            continue
        files = part.classes.setdefault(parts[0], [])
        inside = part.inside.setdefault(parts[0], set())
        if name in archive.broken:
            part.broken[name] = archive.broken[name]
        else:
            files.append(name)
            inside |= {parts[1]} if len(parts) > 2 else set()
    part.others.update(suffix_of(p[-1]) for p in others if p and (not top or p[0] == top))
    part.classes = dict(sorted(part.classes.items()))
    return part
