"""Pictures a second through `training.data.train_batches`: files to augmented 224x224 crops.

Reads 500x375 JPEGs made for it, the size of most of ImageNet, or the pictures of `--data`: random
crops down to `--crop-scale` of a picture. Contenders are numbers of threads, and Pillow in place of
the fast decoder, as where there are no wheels of it. `--format` makes PNG or WebP of the pictures.
"""

import statistics
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from . import harness
from .harness import Contender, Contest

FORMATS = {"jpeg": "jpg", "png": "png", "webp": "webp"}  # suffixes


def photographs(folder: Path, count: int, suffix: str) -> None:
    """Class folders `a` and `b` of files that compress as photographs do: shapes, edges, grain."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:375, :500][..., None]
    for i in range(count):
        image = np.zeros((375, 500, 3))
        for octave in range(1, 6):
            waves = rng.normal(size=(2, 3)) * 2**octave * np.pi / 500
            image += np.sin(x * waves[0] + y * waves[1] + rng.uniform(0, 6, 3)) * 80 / octave
        image = np.where((x - rng.integers(500)) * rng.normal() > y - 200, image, -image)
        image += rng.normal(0, 10, image.shape)
        path = folder / "ab"[i % 2] / f"{i}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.clip(image + 128, 0, 255).astype(np.uint8)).save(path, quality=92)


def many_names(folder: Path, names: int = 8) -> None:
    """Each picture under more names: to shuffle a few hundred takes Grain longer than thousands."""
    for path in list(folder.rglob("*.*")):
        for n in range(1, names):
            (path.parent / f"{n}_{path.name}").hardlink_to(path)


def main() -> None:
    parser = harness.parser(__doc__, "python -m benchmarks.input --data photos --threads 1,2,4")
    parser.set_defaults(seconds=3.0)
    parser.add_argument("--data", type=Path, metavar="FOLDER", help="of class folders")
    parser.add_argument("--format", choices=FORMATS, default="jpeg", help="default: jpeg")
    parser.add_argument("--threads", default="1,2", help="default: 1,2")
    parser.add_argument("--crop-scale", type=float, default=0.08, help="default: 0.08")
    args = parser.parse_args()
    if args.quick:
        args.rounds, args.seconds = 1, 0.0
    result = harness.Result("input", args)
    work = dict(kind="batches", batch=64, batches=8, side=224, crop_scale=args.crop_scale)
    pictures = work["batch"] * work["batches"]
    entrants = [
        Contender(f"zoo, threads={n}", "zoo", options={"threads": int(n)})
        for n in args.threads.split(",")
    ]
    options = {**entrants[0].options, "pillow": True}
    entrants.append(Contender(entrants[0].name.replace("zoo", "Pillow"), "zoo", options=options))
    total = len(entrants) * (1 + args.rounds)
    with tempfile.TemporaryDirectory() as made, harness.progress(total) as bar:
        if not args.data:
            photographs(Path(made), 128 if args.quick else 512, FORMATS[args.format])
            if not args.quick:
                many_names(Path(made))
        work |= {
            "work": str(args.data or f"500x375 {args.format}"),
            "folder": str(args.data or made),
        }
        with Contest(entrants, bar) as contest:
            done = contest.measure(work, rounds=args.rounds, seconds=args.seconds)
        lines = []
        for name, measured in done.items():
            line = {"work": work["work"], "contender": name}
            line |= harness.spread([pictures / s for s in measured["seconds"]], "images/s")
            cpu = [pictures / s for s in measured["cpu_seconds"]]
            lines.append({**line, "images/CPU s": statistics.median(cpu)})
        result.add(contest, lines)
    result.finish()


if __name__ == "__main__":
    main()
