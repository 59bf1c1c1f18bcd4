"""Augmentation: rotation, crops and noise enlarge the sample."""

from .experiment import ACCURACY, CIFAR10, GAP, Figure, Pair, Trick
from .networks import ALEXNET

NONE = dict(shift=0, flip=False)

TRICK = Trick(
    name="augmentation",
    title="Augmentation",
    claim="Rotation, crops and noise enlarge the sample.",
    source="Lin et al., 2013, Network In Network, table 1",
    url="https://arxiv.org/abs/1312.4400",
    figures=(Figure("CIFAR-10 error, shifts and mirroring", "10.41 %", "8.81 %"),),
    setting=dict(
        model="small_alexnet",
        norm="none",
        dropout=0.0,
        image_size=16,
        epochs=6,
        optimizer="sgd",
        warmup=0.2,
        clip_norm=1.0,
    ),
    arms={
        "none": NONE,
        "shift": {**NONE, "shift": 2},
        "rotate": {**NONE, "rotate": 15.0},
        "noise": {**NONE, "noise": 0.1},
        "all": {**NONE, "shift": 2, "rotate": 15.0, "noise": 0.1},
    },
    pairs=(Pair("none", "shift"), Pair("none", "all")),
    measure=ACCURACY,
    effect=10.41 - 8.81,
    rates=(0.01, 0.03),
    axis=("per_class", (14, 43, 140)),  # 10, 30 and 100 % of the digits
    page={"cifar10": {**CIFAR10, "epochs": 10}},
    page_axis={"cifar10": (50, 150, 500)},
    quick=dict(epochs=1),
    networks=(ALEXNET,),
    also=(GAP,),
    predicts="Shifts help most, and most where pictures are few; noise and rotation help little. "
    "The gap between training and validation shrinks with each.",
    refuted_by="a larger gap, or a lower accuracy, with augmentation at 10 % of the data.",
    notes=(
        "Shifts are crops of the padded picture. Crops of another scale were an arm too, and were "
        "left out to spare time.",
        "On the digits a first run, with batch norm and dropout, left every augmented arm "
        "untrained (50 to 78 % at 43 pictures a class); a second, at rates of 0.03 and 0.1 without "
        "a bound on the gradients, let most arms diverge: the setting was changed after each.",
    ),
)
