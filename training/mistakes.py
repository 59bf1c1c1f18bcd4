"""The mistakes of a network as a contact sheet."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from zoo.layers import Network
from zoo.reading import read_picture
from zoo.sheet import FONT_SIZE, MARGIN, contact_sheet, fit
from zoo.text import plain

from .data import Dataset, Files, Source
from .predictions import Predictions
from .sources.base import Tagged

EACH = 12  # pictures: of the most confident mistakes, and of the worst among the others
COLUMNS, WIDTH = 6, 160  # of the contact sheet; pixels a picture
TITLE_SIZE = 16  # pixels


def picture_name(source: Source, index: int) -> str:
    """The path of a picture, or its number if it is not a file. Nothing is decoded."""
    return source.examples[index][0] if isinstance(source, Files | Tagged) else f"{index}"


def mistakes(predictions: Predictions, dataset: Dataset, model: Network) -> Image.Image:
    """A contact sheet in two parts, `EACH` pictures each, as the network sees them.

    First come the most confident mistakes, which often have a wrong label, then the highest losses
    among all other pictures, right or wrong.
    """
    surest, worst, count = select(predictions)
    parts = [
        (title, _contact_sheet(chosen.tolist(), predictions, dataset, model))
        for title, chosen in (
            (f"The most confident of {count:,} mistakes", surest),
            ("The highest losses among the other pictures", worst),
        )
        if len(chosen)
    ]
    font = ImageFont.load_default(TITLE_SIZE)
    width, line = COLUMNS * (WIDTH + 2 * MARGIN), TITLE_SIZE + 2 * MARGIN
    height = sum(line + pictures.height for _, pictures in parts)
    whole = Image.new("RGB", (width, height), "white")
    draw, top = ImageDraw.Draw(whole), 0
    for title, pictures in parts:
        draw.text((MARGIN, top + MARGIN), title, fill="black", font=font)
        whole.paste(pictures, (0, top + line))
        top += line + pictures.height
    return whole


def select(predictions: Predictions) -> tuple[np.ndarray, np.ndarray, int]:
    """(the most confident mistakes, the highest losses of the others, how many mistakes there are).

    The first two are indices of at most `EACH` pictures, the worst first. A prediction of NaN does
    not count as a mistake, but as the highest loss.
    """
    answers = predictions.classes
    wrong = np.flatnonzero(~predictions.right & (answers >= 0))
    surest = wrong[np.argsort(-predictions.probabilities[wrong], kind="stable")][:EACH]
    order = np.argsort(-np.nan_to_num(predictions.losses, nan=np.inf), kind="stable")
    return surest, order[~np.isin(order, surest)][:EACH], len(wrong)


def _contact_sheet(
    chosen: Sequence[int], predictions: Predictions, dataset: Dataset, model: Network
) -> Image.Image:
    pictures = []
    for i in chosen:
        pixels = model.preprocess.image(dataset.val[i]["image"])
        picture = read_picture(pixels, pixels.shape[-1])
        if picture.width < WIDTH:  # the sheet makes none larger
            picture = picture.resize((WIDTH, WIDTH), Image.Resampling.NEAREST)
        pictures.append(np.atleast_3d(np.asarray(picture)))
    captions = [_caption(i, predictions, dataset) for i in chosen]
    return contact_sheet(pictures, captions, columns=COLUMNS, width=WIDTH)


def _caption(i: int, predictions: Predictions, dataset: Dataset) -> list[str]:
    """The lines below a picture: its name, the true class, and the predicted or next likely one."""
    name = picture_name(dataset.val, i)
    name = Path(name).name if isinstance(dataset.val, Files | Tagged) else f"picture {name}"
    font = ImageFont.load_default(FONT_SIZE)
    name = fit(plain(name)[::-1], font, WIDTH)[::-1]  # its end tells it from others
    if predictions.multilabel:
        shown = [dataset.classes[k] for k in np.flatnonzero(predictions.labels[i])]
        said, share = predictions.classes[i], predictions.probabilities[i]
        first = _answer("first", dataset.classes[said], share) if said >= 0 else "first: NaN"
        return [name, fit(f"true: {', '.join(map(plain, shown)) or 'none'}", font, WIDTH), first]
    label, said = int(predictions.labels[i]), int(predictions.classes[i])
    true = np.exp(-predictions.losses[i])
    lines = [name, _answer("true", dataset.classes[label], true)]
    if said < 0:
        return [*lines, "said: NaN"]
    if said != label:
        return [*lines, _answer("said", dataset.classes[said], predictions.probabilities[i])]
    logits = predictions.logits[i].astype(np.float64)
    other = int(np.where(np.arange(len(logits)) == label, -np.inf, logits).argmax())
    share = true * np.exp(logits[other] - logits[label])
    return [*lines, _answer("next", dataset.classes[other], share)]


def _answer(what: str, name: str, share: float) -> str:
    """A line of a caption; the name of the class is shortened if the line is too long."""
    font = ImageFont.load_default(FONT_SIZE)
    around = font.getlength(f"{what}: , {share:.1%}")
    return f"{what}: {fit(name, font, int(WIDTH - around))}, {share:.1%}"
