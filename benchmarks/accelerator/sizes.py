"""How large everything is: on an accelerator, on a CPU to rehearse, and in CI."""

from dataclasses import dataclass, replace

# Ten families that between them have every kind of layer.
FAMILIES = (
    *("mobilenet_v1_025", "mobilenet_v3_small_100", "resnet18", "inception_v1_lrn"),
    *("densenet121", "shufflenet_v2_x0_5", "squeezenet1_1", "regnet_y_200mf"),
    *("efficientnet_b0", "convnext_tiny"),
)

OPERATIONS = (
    *("max pool 3x3 / 2, 112x112x64", "average pool 3x3, 35x35x192"),
    *("depthwise 3x3, 112x112x32", "depthwise 3x3, 14x14x512"),
    *("1x1, 56x56x64 to 256", "3x3 in 32 groups, 56x56x128"),
)


@dataclass(frozen=True)
class Sizes:
    matrix: int  # rows and columns of the matrix product
    copied: int  # bytes of the array that is copied
    families: tuple[str, ...]  # whose logits are compared
    side: int  # pixels of their pictures
    stepped: str  # the network whose training step is compared
    trained: tuple[str, ...]  # the network that learns the digits, and its options of `zoo train`
    epochs: int  # of it
    accuracy: float  # that those must come to
    networks: tuple[str, ...]  # whose speed is measured, the first of them looked into
    pixels: int  # of their pictures
    batches: tuple[int, ...]  # of training; the first is compared with PyTorch
    inference: tuple[int, ...]
    operations: tuple[str, ...]  # of `benchmarks.ops`, whose lowerings are compared
    seconds: float  # that a figure is measured for


# The largest batch comes early: memory of the smaller ones cannot be given back in between, and it
# would not fit beside theirs.
ACCELERATOR = Sizes(
    matrix=8192,
    copied=2**30,
    families=FAMILIES,
    side=64,
    stepped="mobilenet_v1_025",
    trained=("mobilenet_v1_025",),
    epochs=30,
    accuracy=0.97,
    networks=("resnet50", "mobilenet_v2_100"),
    pixels=224,
    batches=(256, 1024, 512, 128),
    inference=(1, 32, 256),
    operations=OPERATIONS,
    seconds=2.0,
)
CPU = replace(
    ACCELERATOR,
    matrix=1024,
    copied=2**26,
    pixels=64,
    batches=(8, 16),
    inference=(1, 8),
    seconds=1.0,
)
TINY = Sizes(
    matrix=256,
    copied=2**20,
    families=("resnet8_mlperf", "mobilenet_v1_025"),
    side=32,
    # not ResNet-8: biases before batch norm have gradients of rounding alone, which compare badly
    stepped="resnet20_cifar",
    trained=("resnet8_mlperf", "--image-size", "16"),
    epochs=2,
    accuracy=0.2,  # of ten classes; the bound of a whole run is 97 %
    networks=("resnet8_mlperf",),
    pixels=32,
    batches=(8,),
    inference=(2,),
    operations=OPERATIONS[:1],
    seconds=0.05,
)
