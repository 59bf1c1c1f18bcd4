"""What bfloat16 costs in accuracy: the same networks in float32 and in bfloat16.

Two tables. Trained weights, on the held-out pictures of a dataset: top-1 accuracy among all the
network's classes, and how often both answer the same. Random weights, a network a family, on
four random pictures. The logits' error is the largest difference over the largest logit in float32.
"""

import argparse
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

import zoo
from training.data import open_dataset
from training.numbering import Renumbered, outputs_of
from training.predictions import Predictions, predict_all

from . import harness
from .harness import Result, Row

DTYPES = ("float32", "bfloat16")
# one a family, the one with the fewest multiply-accumulates or nearly so
FAMILIES = [
    *("alexnet", "nin_imagenet", "vgg11_bn", "inception_v1", "inception_v2", "inception_v3"),
    *("inception_v4", "inception_resnet_v2", "xception", "resnet18", "resnet50_v2", "resnet50d"),
    *("seresnet50", "wide_resnet50_2", "resnet20_cifar", "resnext50_32x4d", "mobilenet_v1_100"),
    *("mobilenet_v2_100", "mobilenet_v3_small_100", "squeezenet1_1", "densenet121"),
    *("shufflenet_v2_x1_0", "mnasnet_100", "efficientnet_b0", "efficientnet_v2_b0"),
    *("regnet_y_400mf", "convnext_tiny", "convnextv2_atto", "efficientnet_lite0"),
    *("mobilenetv4_conv_small", "resnetv2_18", "nasnet_mobile"),
]


def on_pictures(weights: str, data: str) -> Row:
    """Trained weights in both types on a dataset's validation pictures."""
    found: list[Predictions] = []
    for dtype in DTYPES:
        model = zoo.load(weights, dtype=dtype)
        dataset = open_dataset(data)
        outputs = outputs_of(model, dataset)
        source = dataset.val if outputs is None else Renumbered(dataset.val, outputs)
        found.append(predict_all(model, source))
    whole, half = found
    count = len(whole.labels)
    return {
        "weights": weights,
        "pictures": f"{count:,} of {data.rpartition('/')[2]}",
        "float32, %": 100 * whole.correct / count,
        "bfloat16, %": 100 * half.correct / count,
        "points": 100 * (half.correct - whole.correct) / count,
        "same answer, %": 100 * float((whole.classes == half.classes).mean()),
        "logits' error": error(whole.logits, half.logits),
    }


def at_random(network: str) -> Row:
    """A network with random weights in both types on four random pictures."""
    logits = []
    for dtype in DTYPES:
        model = zoo.create(network, dtype=dtype)
        size, channels = model.preprocess.size, model.spec.in_chans
        x = np.random.default_rng(0).integers(0, 256, (4, size, size, channels), np.uint8)
        logits.append(np.asarray(model(model.preprocess.normalize(jnp.asarray(x)))))
    return {"network": network, "logits' error": error(*logits)}


def error(expected: np.ndarray, got: np.ndarray) -> float:
    """The largest difference, relative to the largest value."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="example: python -m benchmarks.precision --on resnet20_cifar.cifar10 cifar10:PATH",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--on",
        nargs=2,
        action="append",
        default=[],
        metavar=("WEIGHTS", "DATA"),
        help="weights by name or file, and pictures, as for zoo evaluate; may be repeated",
    )
    parser.add_argument("networks", nargs="*", help="with random weights (one a family)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results too")
    args = parser.parse_args()
    result = Result("precision", args)
    result.describe({}, {"jax": jax.__version__})
    networks = args.networks or FAMILIES
    with tqdm(total=len(args.on) + len(networks), disable=None) as bar:
        for weights, data in args.on:
            bar.set_description_str(weights)
            result.put([{"step": "trained weights", **on_pictures(weights, data)}])
            bar.update()
        for network in networks:
            bar.set_description_str(network)
            result.put([{"step": "random weights", **at_random(network)}])
            bar.update()
    print(harness.tables(result.content["rows"]))
    result.finish()


if __name__ == "__main__":
    main()
