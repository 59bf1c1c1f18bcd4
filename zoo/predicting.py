"""The work of `zoo predict`: find pictures, read them and classify them a batch at a time.

It needs the memory of one batch, however many pictures there are. Pictures that cannot be read are
reported and skipped.
"""

import csv
import io
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import cast

import jax
import numpy as np

from .errors import ZooError
from .layers import Network
from .preprocess import Preprocess
from .reading import is_hidden, is_picture
from .terminal import line_width
from .text import cell, plain

BATCH = 16  # pictures
SHEET = 64  # pictures of a contact sheet, at most


@dataclass(frozen=True)
class Answer:
    """The likeliest classes of a picture, best first."""

    image: str
    pixels: np.ndarray  # uint8 [size, size, 3], as the network saw it
    best: tuple[tuple[int, str, float], ...]  # number, name and probability

    def lines(self) -> list[str]:
        """One line for each of the best classes: percent and name."""
        return [f"{share:6.1%}  {plain(name)}" for _, name, share in self.best]


def pictures_in(paths: Sequence[str]) -> tuple[list[str], int]:
    """The paths, with each folder replaced by all pictures below it; and the number of other files.

    In a folder, pictures are the files with a suffix that Pillow reads. Hidden files are skipped.

    Raises:
      ZooError: a folder without a picture.
    """
    pictures: list[str] = []
    others = 0
    for path in paths:
        if not Path(path).is_dir():
            pictures.append(path)
            continue
        inside = [
            file
            for file in sorted(Path(path).rglob("*"))
            if not any(is_hidden(part) for part in file.relative_to(path).parts)
            and not file.is_dir()
        ]
        own = [str(file) for file in inside if is_picture(file.name)]
        if not own:
            raise ZooError(f"no pictures in the folder {path}, which has {len(inside)} files")
        pictures += own
        others += len(inside) - len(own)
    return pictures, others


def predict(
    model: Network, images: Sequence[str], top: int, tell: Callable[[str], object]
) -> Iterator[Answer]:
    """Classify pictures, in their order.

    Args:
      model: the network.
      images: paths of the pictures.
      top: how many classes to return for each.
      tell: called with a line for each picture that cannot be read.
    """
    names = model.classes or [f"class {i}" for i in range(model.spec.num_classes)]
    size = min(BATCH, len(images))  # one compilation
    rest = iter(images)
    with ThreadPoolExecutor() as pool:
        while batch := list(islice(rest, size)):
            read = zip(batch, pool.map(partial(_pixels, model.preprocess), batch), strict=True)
            pictures = []
            for image, pixels in read:
                if isinstance(pixels, ZooError):
                    tell(f"{pixels}")
                else:
                    pictures.append((image, pixels))
            if not pictures:
                continue
            stack = np.stack([pixels for _, pixels in pictures])
            padded = np.pad(stack, ((0, size - len(stack)), (0, 0), (0, 0), (0, 0)))
            logits = cast(jax.Array, model(model.preprocess.normalize(padded)))
            for (image, pixels), row in zip(
                pictures, np.asarray(jax.nn.softmax(logits)), strict=False
            ):
                best = row.argsort()[::-1][:top]
                yield Answer(image, pixels, tuple((int(i), names[i], float(row[i])) for i in best))


def _pixels(preprocess: Preprocess, image: str) -> np.ndarray | ZooError:
    """A picture as the network takes it, or the error if it cannot be read."""
    try:
        return preprocess.image(image)
    except ZooError as error:
        return error


# --- forms: an answer at a time -------------------------------------------------------------------


def as_text(answers: Iterator[Answer], images: Sequence[str]) -> Iterator[str]:
    """A table as wide as a line, a row for each class; long names of pictures keep their end."""
    width = line_width()
    longest = max([len("picture"), *(len(plain(image)) for image in images)])
    name = min(longest, width // 2)
    head = f"{'picture':{name}}  {'share':>6}  class"
    for answer in answers:
        if head:
            yield head
            head = ""
        image = plain(answer.image)
        image = image if len(image) <= name else "…" + image[1 - name :]
        for line in answer.lines():
            line = f"{image:{name}}  {line}"
            yield line if len(line) <= width else line[: width - 1] + "…"
            image = ""  # once for all of its classes


def as_csv(answers: Iterator[Answer], _: Sequence[str]) -> Iterator[str]:
    """A row for each picture and class."""

    def row(*cells: object) -> str:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(cells)
        return text.getvalue()

    yield row("image", "rank", "index", "class", "probability")
    for answer in answers:
        for rank, (index, name, share) in enumerate(answer.best, 1):
            image, label = cell(plain(answer.image)), cell(plain(name))
            yield row(image, rank, index, label, f"{share:.6g}")


def as_json(answers: Iterator[Answer], _: Sequence[str]) -> Iterator[str]:
    """One list."""
    before = "["
    for answer in answers:
        best = [
            {"index": index, "class": name, "probability": share}
            for index, name, share in answer.best
        ]
        yield before + json.dumps({"image": answer.image, "predictions": best})
        before = ","
    yield "[]" if before == "[" else "]"


FORMS: dict[str, Callable[[Iterator[Answer], Sequence[str]], Iterator[str]]] = {
    "text": as_text,
    "csv": as_csv,
    "json": as_json,
}
