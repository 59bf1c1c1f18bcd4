"""Depthwise kernels: a 3x3 on each channel, then a 1x1 across them."""

from .experiment import ACCURACY, CIFAR10, Figure, Measure, Pair, Trick
from .small_kernels import MACS, PARAMS

TRICK = Trick(
    name="depthwise",
    title="Depthwise kernels",
    claim="Depthwise convolutions take the parameters to 1/9; the accuracy is still fine.",
    source="Howard et al., 2017, MobileNets, table 4",
    url="https://arxiv.org/abs/1704.04861",
    figures=(
        Figure("ImageNet accuracy", "71.7 %", "70.6 %"),
        Figure("parameters", "29.3 million", "4.2 million"),
        Figure("multiply-adds", "4,866 million", "569 million"),
    ),
    setting=dict(
        model="mobilenet_v1_025",
        image_size=32,
        per_class=50,
        batch_size=16,
        epochs=8,
        optimizer="sgd",
    ),
    arms={"full": dict(without="depthwise"), "depthwise": {}},
    pairs=(Pair("full", "depthwise"),),
    measure=ACCURACY,
    effect=70.6 - 71.7,
    rates=(0.03, 0.1),
    page={"cifar10": {**CIFAR10, "epochs": 20}},
    quick=dict(epochs=1, per_class=16),
    also=(PARAMS, MACS, Measure("images_per_second", "training pictures a second", True, ",.0f")),
    predicts="1/5 to 1/8 of the parameters, an accuracy one to three points lower.",
    refuted_by="an accuracy more than five points lower.",
    notes=(
        "The steps are few: the accuracy of the depthwise network was still rising at the end.",
        "On CIFAR-10 other programs ran beside: the pictures a second are lower for it, and vary.",
    ),
)
