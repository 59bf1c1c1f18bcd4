"""Dropout: random removal of units acts as resampling."""

from .experiment import ACCURACY, CIFAR10, GAP, Figure, Pair, Trick
from .networks import ALEXNET

TRICK = Trick(
    name="dropout",
    title="Dropout",
    claim="Removing units at random acts as resampling, against overfitting.",
    source="Srivastava et al., 2014, table 3",
    url="https://jmlr.org/papers/v15/srivastava14a.html",
    figures=(
        Figure("CIFAR-10 error, fully connected layers", "14.98 %", "14.32 %"),
        Figure("all layers", "14.98 %", "12.61 %"),
    ),
    setting=dict(
        model="small_alexnet", norm="none", image_size=32, epochs=6, optimizer="sgd", shift=0
    ),
    arms={str(rate): dict(dropout=rate) for rate in (0.0, 0.25, 0.5, 0.75)},
    pairs=(Pair("0.0", "0.5"),),
    measure=ACCURACY,
    effect=14.98 - 14.32,
    rates=(0.01, 0.03),
    axis=("per_class", (140, 14)),
    page={"cifar10": {**CIFAR10, "epochs": 20}},
    page_axis={"cifar10": (500, 50)},
    quick=dict(epochs=1),
    networks=(ALEXNET,),
    also=(GAP,),
    predicts="The gap shrinks with the rate; the accuracy rises by a point or so where pictures "
    "are few, and falls at 0.75.",
    refuted_by="a larger gap with dropout.",
)
