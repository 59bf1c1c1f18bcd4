"""Put published weights into `checkpoints/`, with a card, so that they are there without a network.

    python -m tools.bundle NETWORK.TAG FILE --about FILE

The first FILE is the published one; the second holds Markdown for the top of the card: what the
weights are for, and what they are not for.
"""

import argparse
import hashlib
from pathlib import Path

import zoo
from zoo.pretrained.catalogue import OWN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("name", help="NETWORK.TAG, of the catalogue")
    parser.add_argument("file", type=Path)
    parser.add_argument("--about", required=True, type=Path)
    args = parser.parse_args()
    put(args.name, args.file, args.about.read_text("utf-8"))


def put(name: str, file: Path, about: str) -> None:
    """Convert a published file, and write it and its card under its name."""
    row = zoo.weights(name)
    model = zoo.load(name, file=file)
    path = OWN / f"{name}.safetensors"
    zoo.save(model, path)
    published, ours = (hashlib.sha256(p.read_bytes()).hexdigest() for p in (file, path))
    outputs = f"{row.classes:,} classes" if row.classes else "pooled features, no classifier"
    counts = zoo.count(model)
    size = row.preprocess.size
    lines = [
        f"# {name}",
        about.strip(),
        "|  |  |\n|---|---|",
        f"| published as | {row.file} |",
        f"| its sha256 | `{published}` |",
        f"| sha256 | `{ours}` |",
        f"| licence | {row.licence} |",
        f"| parameters | {counts.params:,} |",
        f"| multiply-accumulates a picture | {counts.macs:,} |",
        f"| input | {size} x {size} RGB |",
        f"| outputs | {outputs} |",
    ]
    code = (
        f'import zoo\n\nmodel = zoo.load("{name}")\nfeatures = model(model.preprocess(["cat.jpg"]))'
    )
    text = "\n\n".join([*lines[:2], "\n".join(lines[2:]), f"```python\n{code}\n```"])
    (OWN / f"{name}.md").write_text(f"{text}\n", "utf-8")


if __name__ == "__main__":
    main()
