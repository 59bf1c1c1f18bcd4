"""Contact sheets: pictures side by side, each with lines of text below it."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .reading import read_picture, read_rgb
from .text import plain

MARGIN, LINE, FONT_SIZE = 12, 17, 13  # pixels


def contact_sheet(
    pictures: Sequence[np.ndarray],
    captions: Sequence[Sequence[str]],
    *,
    columns: int = 4,
    width: int = 224,
) -> Image.Image:
    """One picture of many.

    Args:
      pictures: uint8 [H, W, C] each, grey, RGB or RGBA, of any size.
      captions: the lines below each; what is too long for its column is cut off.
      columns: pictures in a row, at most.
      width: of a picture on the sheet, pixels; its height follows.
    """
    font = ImageFont.load_default(FONT_SIZE)
    columns = min(columns, len(pictures))
    lines = max(map(len, captions))
    cell_w, cell_h = width + 2 * MARGIN, width + lines * LINE + 2 * MARGIN
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * cell_w, rows * cell_h), "white")
    draw = ImageDraw.Draw(sheet)
    for i, (pixels, caption) in enumerate(zip(pictures, captions, strict=True)):
        left, top = i % columns * cell_w + MARGIN, i // columns * cell_h + MARGIN
        picture = read_rgb(read_picture(pixels, pixels.shape[-1]))
        picture.thumbnail((width, width), Image.Resampling.LANCZOS)
        dx, dy = (width - picture.width) // 2, width - picture.height
        sheet.paste(picture, (left + dx, top + dy))
        for j, text in enumerate(caption):
            cut = fit(text, font, width)
            draw.text((left, top + width + 4 + j * LINE), cut, fill="black", font=font)
    return sheet


def fit(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont, width: int) -> str:
    """As much of a text, on one line, as `width` pixels hold, and an ellipsis where it is cut."""
    text = plain(text)
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
