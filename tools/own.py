"""Put the weights of a finished run into `checkpoints/`, with card, curves and facts.

    python -m tools.own RUN NETWORK.TAG --recipe NAME --data "CIFAR-10 as JPEG files" --about FILE

RUN is the folder of a run of that recipe; FILE holds Markdown for the top of the card: the data's
origin and licence, what the weights are for, and what they are not for. ImageNet's classes get
their names in place of their synsets. Then run `python -m tools.catalogue FOLDER`.
"""

import argparse
import csv
import hashlib
import json
import re
import shutil
from dataclasses import asdict
from pathlib import Path

import zoo
from training.evaluation import interval
from training.recipes import recipe
from zoo.pretrained.catalogue import OWN, imagenet_classes, imagenet_synsets
from zoo.pretrained.own import Own

NAMES = dict(zip(imagenet_synsets(), imagenet_classes(), strict=True))  # folders' -> people's
DEVICE = re.compile(r"^\| training time \| \d+ s on (.*) \|$", re.MULTILINE)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name", help="NETWORK.TAG")
    parser.add_argument("--recipe", required=True)
    parser.add_argument("--data", required=True, help="what the pictures are, for people")
    parser.add_argument("--about", required=True, type=Path)
    args = parser.parse_args()
    put(args.run, args.name, args.recipe, args.data, args.about.read_text("utf-8"))


def put(run: Path, name: str, by: str, data: str, about: str) -> None:
    """Copy a run's weights, curves and card under a name of the catalogue."""
    settings = json.loads((run / "config.json").read_bytes())
    differs = {key for key, value in recipe(by).items() if settings[key] != value} - {"data"}
    if differs:
        raise SystemExit(f"{run} is no run of {by}: {', '.join(sorted(differs))} differ")
    card = (run / "card.md").read_text("utf-8")
    facts = asdict(_facts(run, name, by, data, settings, card))
    model = zoo.load(str(run), dtype="float32")  # whatever the run computed in
    model.classes = tuple(NAMES.get(synset, synset) for synset in model.classes)
    file = OWN / f"{name}.safetensors"
    zoo.save(model, file)
    shutil.copyfile(run / "curves.png", OWN / f"{name}.png")
    title, _, rest = card.partition("\n\n")
    rest = re.sub(r"n\d{8}", lambda synset: NAMES.get(synset[0], synset[0]), rest)
    rest = rest.replace(settings["out"], run.name)  # no folders of this machine
    rest = re.sub("`[0-9a-f]{64}`", f"`{hashlib.sha256(file.read_bytes()).hexdigest()}`", rest)
    rest = rest.replace("(curves.png)", f"({name}.png)")
    rest = rest.replace('zoo.load("model.safetensors")', f'zoo.load("{name}")')
    (OWN / f"{name}.md").write_text(f"{title}\n\n{about.strip()}\n\n{rest}", "utf-8")
    (OWN / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", "utf-8")


def _facts(run: Path, name: str, by: str, data: str, settings: dict[str, object], card: str) -> Own:
    with (run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        right = [row["label"] == row["prediction"] for row in csv.DictReader(file)]
    epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text("utf-8").splitlines()]
    low, high = interval(sum(right), len(right))
    return Own(
        name=name,
        recipe=by,
        data=data,
        kind=str(settings["data"]).partition(":")[0],
        train=sum(json.loads((run / "data.json").read_bytes())["train"]["pictures"]),
        held_out=len(right),
        correct=sum(right),
        low=low,
        high=high,
        seconds=round(sum(epoch["seconds"] for epoch in epochs), 1),
        device=DEVICE.findall(card)[0],
        seed=int(str(settings["seed"])),
        started_from=str(settings["weights"] or ""),
    )


if __name__ == "__main__":
    main()
