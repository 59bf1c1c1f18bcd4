"""Hostile pictures: mutants of every format that is read, and files made to cost too much.

    python tests/faults/pictures.py 10000

reads so many and prints what became of them. Each is read as evaluation does, as training does and
as a folder is checked, in a process of its own kind: one that a picture kills is begun anew.
"""

import contextlib
import io
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

CPU = 5.0  # seconds that a picture may take
MEMORY = 256 << 20  # bytes that it may take beyond twice the file and the decoded picture


# --- what there is to mutate ----------------------------------------------------------------------


def saved(picture: Image.Image, kind: str, **settings: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, kind, **settings)
    return file.getvalue()


def seeds() -> dict[str, bytes]:
    """A small picture of every format and mode that Pillow writes and we read."""
    noise = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    rgb = Image.fromarray(noise).resize((48, 36), Image.Resampling.BICUBIC)
    grey, rgba = rgb.convert("L"), rgb.convert("RGBA")
    rgba.putalpha(grey)
    palette = rgb.quantize(16)
    wide = Image.fromarray(np.asarray(grey).astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker" * 20
    several = {"save_all": True, "append_images": [rgb.rotate(90), rgb.rotate(180)]}
    made = {
        "jpeg": saved(rgb, "JPEG", exif=exif, dpi=(72, 72)),
        "jpeg progressive": saved(rgb, "JPEG", progressive=True, icc_profile=b"icc" * 50),
        "jpeg cmyk": saved(rgb.convert("CMYK"), "JPEG"),
        "jpeg grey": saved(grey, "JPEG", quality=30),
        "mpo": saved(rgb, "MPO", **several),
        "png": saved(rgb, "PNG", exif=exif, icc_profile=b"icc" * 50),
        "png palette": saved(palette, "PNG", transparency=3),
        "png rgba": saved(rgba, "PNG"),
        "png la": saved(rgba.convert("LA"), "PNG"),
        "png 16": saved(wide, "PNG"),
        "apng": saved(rgb, "PNG", **several),
        "gif": saved(palette, "GIF", transparency=2),
        "gif animated": saved(rgb, "GIF", **several),
        "webp": saved(rgb, "WEBP", exif=exif),
        "webp lossless": saved(rgba, "WEBP", lossless=True),
        "webp animated": saved(rgb, "WEBP", **several),
        "bmp": saved(rgb, "BMP"),
        "bmp palette": saved(palette, "BMP"),
        "dib": saved(rgb, "DIB"),
        "tiff": saved(rgb, "TIFF", exif=exif),
        "tiff 16": saved(wide, "TIFF"),
        "ppm": saved(rgb, "PPM"),
        "pgm": saved(grey, "PPM"),
        "pgm plain": b"P2 48 36 255\n" + b" ".join(b"%d" % v for v in grey.tobytes()),
        "pbm": saved(grey.convert("1"), "PPM"),
        "ico": saved(rgba, "ICO"),
        "icns": saved(rgba.resize((32, 32)), "ICNS"),
        "tga": saved(rgb, "TGA", compression="tga_rle"),
        "pcx": saved(rgb, "PCX"),
        "sgi": saved(rgb, "SGI"),
        "dds": saved(rgba, "DDS"),
        "xbm": saved(grey.convert("1"), "XBM"),
        "msp": saved(grey.convert("1"), "MSP"),
    }
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits", "group4"):
        picture = grey.convert("1") if compression == "group4" else rgb
        made[f"tiff {compression}"] = saved(picture, "TIFF", compression=compression)
    for name, kind in (("avif", "AVIF"), ("jp2", "JPEG2000"), ("qoi", "QOI")):
        if kind in Image.SAVE:
            made[name] = saved(rgb, kind)
    return made


NUMBERS = (0, 1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """The bytes with one to four kinds of damage, mostly near their beginning."""
    out = bytearray(data)

    def place() -> int:
        top = len(out) if rng.random() < 0.5 else min(len(out), 200)
        return int(rng.integers(0, max(top, 1)))

    for _ in range(rng.integers(1, 5)):
        if not out:
            break
        i, length = place(), int(rng.integers(1, 64))
        number = int(rng.choice(NUMBERS))
        match rng.integers(0, 8):
            case 0:
                out[i] ^= 1 << int(rng.integers(0, 8))
            case 1:
                out[i : i + length] = rng.bytes(min(length, len(out) - i))
            case 2:
                out[i : i + 4] = number.to_bytes(4, "big")
            case 3:
                out[i : i + 4] = number.to_bytes(4, "little")
            case 4:
                out[i : i + 2] = (number & 0xFFFF).to_bytes(2, "little")
            case 5:
                del out[i : i + length]
            case 6:
                out[i:i] = out[i : i + length] * int(rng.integers(1, 9))
            case 7:
                start = int(rng.integers(0, len(other)))
                out[i:] = other[start:] if rng.random() < 0.5 else b""
    return bytes(out)


# --- what costs too much on purpose ---------------------------------------------------------------


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG of zeros, compressed as far as it goes."""
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = bytes(1 + (width * channels * depth + 7) // 8)
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return (
        b"\x89PNG\r\n\x1a\n"
        + head
        + b"".join(chunks)
        + chunk(b"IDAT", packed)
        + chunk(b"IEND", b"")
    )


def with_size(jpeg: bytes, width: int, height: int) -> bytes:
    """A JPEG file that says that it has another size."""
    at = max(jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2")) + 5
    return jpeg[:at] + struct.pack(">HH", height, width) + jpeg[at + 4 :]


def many_scans(count: int, side: int) -> bytes:
    """A progressive JPEG that goes over its pixels again and again."""
    data = saved(Image.new("L", (16, 16), 128), "JPEG", progressive=True)
    at = data.index(b"\xff\xda")
    scan = data[at : data.index(b"\xff", at + 2)]
    end = data.rindex(b"\xff\xda")
    last = data[end:-2]
    return with_size(data[:at] + scan + data[at + len(scan) : end] + last * count, side, side) + (
        b"\xff\xd9"
    )


def tiff(entries: list[tuple[int, int, int, int]], data: bytes = b"") -> bytes:
    """A little-endian TIFF of these (tag, type, count, value), with data after them."""
    head = b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", len(entries))
    return head + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4) + data


def tiff_of(width: int, height: int, *more: tuple[int, int, int, int]) -> list[tuple[int, ...]]:
    plain = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1)]
    return sorted([*plain, (262, 3, 1, 1), (277, 3, 1, 1), *more])  # type: ignore[list-item]


def gif(width: int, height: int) -> bytes:
    """A GIF that says that its canvas is so large, with a frame of one pixel."""
    data = bytearray(saved(Image.new("P", (1, 1)), "GIF"))
    data[6:10] = struct.pack("<HH", width, height)
    return bytes(data)


def targeted(thorough: bool = True) -> dict[str, bytes]:
    """Small files that ask for much; unless `thorough` without those that take a second or more."""
    rgb = Image.new("RGB", (16, 16), "red")
    tags = [(i, 2, 200_000, 8) for i in range(300, 20_000)]
    strips = (273, 4, 10_000, 8), (278, 4, 1, 1), (279, 4, 10_000, 8)
    tiles = (322, 4, 1, 40_000), (323, 4, 1, 40_000), (324, 4, 1, 8), (325, 4, 1, 100)
    masks = 32, 0xFF0000, 0xFF00, 0xFF, 0xFF000000
    dds = struct.pack("<7I44x8I16x", 124, 0x1007, 13_000, 13_000, 0, 0, 0, 32, 0x41, 0, *masks)
    tga = struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, 13_000, 13_000, 24, 0)
    xpm = b'/* XPM */\nstatic char *x[] = {\n"13000 13000 1 1",\n"a c #000000",\n'
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n%%EOF\n"
    jpeg = saved(rgb, "JPEG")
    huge = struct.pack(">IIBBBBB", 1 << 20, 1 << 20, 8, 2, 0, 0, 0)
    segment = b"Exif\0\0" + b"II*\0\x08\0\0\0" + bytes(65_000)
    exif = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    made = {
        "png thread": png(1, 60_000),
        "png wide thread": png(60_000, 1),
        "png too large": png(1, 1)[:16] + huge + struct.pack(">I", zlib.crc32(b"IHDR" + huge)),
        "png exif": png(4, 4, chunk(b"eXIf", tiff(tags, bytes(200_000)))),
        "jpeg too large": with_size(jpeg, 65_500, 65_500),
        "jpeg of 1000 scans": many_scans(1000, 4_000),
        "jpeg of 20 scans": many_scans(20, 12_000),
        "jpeg of many exif segments": jpeg[:2] + exif * 100 + jpeg[2:],
        "jpeg of comments": jpeg[:2] + (b"\xff\xfe\xff\xff" + bytes(65_533)) * 200 + jpeg[2:],
        "gif canvas": gif(65_535, 65_535),
        "tiff of tags": tiff(tags, bytes(200_000)),
        "tiff of a loop": b"II*\0" + struct.pack("<IHI", 8, 0, 8),
        "tiff strips": tiff(tiff_of(10_000, 10_000, *strips)),
        "tiff tiles": tiff(tiff_of(16, 16, *tiles), bytes(100)),
        "bmp": saved(rgb, "BMP")[:18] + struct.pack("<ii", 100_000, 1_700) + saved(rgb, "BMP")[26:],
        "pgm plain": b"P2 13000 13000 255\n" + b"1 " * 1000,
        "pgm of digits": b"P2 " + b"9" * 10_000 + b" 1 255\n1",
        "ppm": b"P6 13000 13000 255\n",
        "qoi": b"qoif" + struct.pack(">IIBB", 13_000, 13_000, 3, 0) + b"\xfd" * 100_000,
        "xpm": xpm + b'"a",\n' * 100,
        "dds": b"DDS " + dds + bytes(100),
        "tga": tga + b"\xff\0\0\0" * 10_000,
        "eps": eps,
        "words": b"hello " * 1000,
        "nothing": b"",
    }
    if "JPEG2000" in Image.SAVE:
        small = saved(Image.new("L", (16, 16)), "JPEG2000", no_jp2=True)
        sizes = (struct.pack(">II", side, side) for side in (16, 13_000))
        made["j2k large"] = small.replace(*sizes, 1)
    return {**made, **(costly() if thorough else {})}


def costly() -> dict[str, bytes]:
    """Files at the limits: as large as may be, with as much to unpack."""
    text = zlib.compress(bytes(60 << 20), 9)
    strip = (273, 4, 1, 200), (278, 4, 1, 12_000), (279, 4, 1, 140_000)
    deflated = tiff(tiff_of(12_000, 12_000, *strip), bytes(300)).replace(
        struct.pack("<HHII", 259, 3, 1, 1), struct.pack("<HHII", 259, 3, 1, 8)
    )
    made = {
        "png largest": png(16_000, 11_000),
        "png largest with transparency": png(7_700, 7_700, colour=6),
        "png of more with transparency": png(13_000, 13_000, colour=6),
        "png largest of 16 bits": png(9_400, 9_400, depth=16, colour=0),
        "png text": png(4, 4, *[chunk(b"zTXt", b"key\0\0" + text)] * 50),
        "png international text": png(4, 4, *[chunk(b"iTXt", b"key\0\1\0\0\0" + text)] * 50),
        "png profile": png(4, 4, chunk(b"iCCP", b"icc\0\0" + text)),
        "png of many chunks": png(4, 4, chunk(b"tEXt", b"a\0b") * 400_000),
        "jpeg large": with_size(saved(Image.new("RGB", (16, 16)), "JPEG"), 13_000, 13_000),
        "jpeg largest": saved(Image.new("RGB", (13_000, 13_000)), "JPEG"),
        "gif large canvas": gif(13_000, 13_000),
        "tiff deflate": deflated + zlib.compress(bytes(144_000_000), 9),
        "webp": saved(Image.new("RGB", (4_400, 4_400)), "WEBP", method=0, quality=0),
        "webp too large": saved(Image.new("RGB", (12_000, 12_000)), "WEBP", method=0, quality=0),
    }
    if "JPEG2000" in Image.SAVE:
        made["jp2"] = saved(Image.new("RGB", (3_300, 3_300)), "JPEG2000")
    if "AVIF" in Image.SAVE:
        made["avif"] = saved(Image.new("RGB", (6_600, 6_600)), "AVIF", speed=10, quality=1)
    return made


# --- one after the other --------------------------------------------------------------------------


def child(seed: int, first: int, last: int, thorough: bool) -> None:
    """Read the pictures of these numbers, and print a line of JSON on each."""
    import ctypes

    from training.decode import check, crop
    from zoo.errors import ZooError
    from zoo.preprocess import IMAGENET
    from zoo.reading import formats

    ways = {
        "checked": check,
        "for evaluation": IMAGENET.image,
        "for training": lambda path: crop(path, IMAGENET, IMAGENET.box),
        "a small crop": lambda path: crop(path, IMAGENET, lambda size: (0, 0, *small(size))),
    }

    def small(size: tuple[int, int]) -> tuple[int, int]:
        return min(size[0], 300), min(size[1], 300)

    space = 6 << 30
    resource.setrlimit(resource.RLIMIT_AS, (space, space))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    known, wanted = seeds(), targeted(thorough)
    names = [*known]
    with tempfile.TemporaryDirectory() as folder:
        for number in range(first, last):
            rng = np.random.default_rng((seed, number))
            name, other = (names[i] for i in rng.integers(0, len(names), 2))
            data = mutated(rng, known[name], known[other])
            if number < len(wanted):
                name, data = [*wanted.items()][number]
            path = Path(folder) / f"{number}.jpg"
            path.write_bytes(data)
            told: dict[str, Any] = {"number": number, "name": name, "bytes": len(data)}
            print(json.dumps(told), flush=True)  # so that one that kills is known
            memory, cpu, refused = [0], [0.0], []
            for way, read in ways.items():
                ctypes.CDLL(None).malloc_trim(0)
                signal.setitimer(signal.ITIMER_PROF, 4 * CPU)
                begun, before = time.process_time(), peak(reset=True)
                try:
                    read(str(path))
                except ZooError as error:
                    refused.append(str(error))
                except BaseException as error:
                    told["lost"] = f"{way}: {type(error).__name__}: {error}"
                memory.append(peak() - before)
                cpu.append(time.process_time() - begun)
                signal.setitimer(signal.ITIMER_PROF, 0)
            with (
                contextlib.suppress(Exception),
                Image.open(path, formats=formats()) as picture,
            ):
                told["size"] = list(picture.size)
            if 0 < len(refused) < len(ways):
                told["lost"] = f"refused in one way, read in another: {refused[0]}"
            told |= {"refused": refused, "memory": max(memory), "cpu": max(cpu)}
            path.unlink()
            print(json.dumps(told), flush=True)


def peak(reset: bool = False) -> int:
    """The most memory this process has had, bytes; `reset` forgets it and gives the present."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    field = "VmRSS" if reset else "VmHWM"
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if field in x)
    return int(line.split()[1]) << 10


def judged(told: dict[str, Any]) -> str:
    """Whether a picture was "read", "refused" or is "lost"."""
    if "cpu" not in told:
        told["lost"] = "it killed the process"
    elif told["cpu"] > CPU:
        told["lost"] = f"{told['cpu']:.1f} s of CPU time"
    width, height = told.get("size", (0, 0))
    spare = told.get("memory", 0) - 2 * told["bytes"] - 4 * width * height
    told["beyond"] = spare
    if spare > MEMORY:
        told["lost"] = f"{spare / 2**20:.0f} MiB beyond twice the file and the picture"
    for line in told.get("refused", ()):
        if len(line.splitlines()) != 1 or not line.startswith("cannot read image "):
            told["lost"] = f"not one line: {line!r}"
    return "lost" if "lost" in told else "refused" if told["refused"] else "read"


def run(
    count: int,
    seed: int = 0,
    thorough: bool = True,
    tell: Callable[[dict[str, Any]], None] = lambda told: None,
) -> dict[str, Any]:
    """Read `count` pictures, those of `targeted` first.

    Returns:
        How many were tried, read, refused (one line) and lost (anything else); the worst CPU time,
        seconds, and memory beyond twice the file and the decoded picture, bytes, with their names;
        the first of the lost, and what was printed (libtiff tells of damage by itself).
    """
    counts = dict.fromkeys(("tried", "read", "refused", "lost"), 0)
    worst: dict[str, Any] = {"cpu": (0.0, ""), "memory": (0, "")}
    lost: list[str] = []
    printed: list[str] = []
    number = 0
    while number < count:
        root = Path(__file__).parents[2]
        paths = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(
            [sys.executable, __file__, *map(str, (seed, number, count, int(thorough)))],
            env={**os.environ, "PYTHONPATH": paths},
            capture_output=True,
            text=True,
            errors="replace",
        )
        found = {(told := json.loads(line))["number"]: told for line in done.stdout.splitlines()}
        for told in found.values():
            what = judged(told)
            counts["tried"] += 1
            counts[what] += 1
            name = f"{told['name']} ({told['number']})"
            worst["cpu"] = max(worst["cpu"], (round(told.get("cpu", 4 * CPU), 2), name))
            worst["memory"] = max(worst["memory"], (told["beyond"], name))
            if what == "lost":
                lost.append(f"{name}: {told['lost']}")
            tell(told)
        printed += done.stderr.splitlines()
        if not found:
            raise RuntimeError(done.stderr)
        number = max(found) + 1
    return {**counts, "worst": worst, "which": lost[:20], "printed": printed[:20]}


if __name__ == "__main__":
    if len(sys.argv) > 2:
        child(*map(int, sys.argv[1:]))
    else:
        print(json.dumps(run(int(sys.argv[1])), indent=1))
