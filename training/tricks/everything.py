"""All together: the tricks added one by one to one network."""

from typing import Any

from .experiment import ACCURACY, CIFAR10, TRAIN_LOSS, Figure, Pair, Trick

RUNGS: dict[str, dict[str, Any]] = {
    "before the tricks": dict(
        act="sigmoid",
        init="normal(0.01)",
        norm="none",
        without="residual",
        optimizer="sgd",
        schedule="constant",
        warmup=0.0,
        shift=0,
        flip=False,
        weight_decay=0.0,
    ),
    "+ ReLU": dict(act=None),
    "+ He's initialisation": dict(init="he_normal"),
    "+ batch norm": dict(norm="batch"),
    "+ residual connections": dict(without=""),
    "+ decayed rate": dict(schedule="cosine", warmup=0.05),
    "+ augmentation": dict(shift=2),
    "+ weight decay": dict(weight_decay=5e-4),
    "+ label smoothing": dict(label_smoothing=0.1),
}


def ladder() -> dict[str, dict[str, Any]]:
    """Each rung with all changes before it."""
    so_far: dict[str, Any] = {}
    rungs = {}
    for name, change in RUNGS.items():
        so_far = {**so_far, **change}
        rungs[name] = so_far
    return rungs


TRICK = Trick(
    name="everything",
    title="All together",
    claim="The tricks add up.",
    source="He et al., 2018, Bag of Tricks for Image Classification, tables 3 to 6",
    url="https://arxiv.org/abs/1812.01187",
    figures=(Figure("ResNet-50, ImageNet accuracy", "75.3 %", "79.29 %"),),
    setting=dict(model="resnet20_cifar", image_size=16, per_class=85, epochs=4),
    arms=ladder(),
    pairs=(Pair("before the tricks", "+ label smoothing"),),
    measure=ACCURACY,
    effect=79.29 - 75.3,
    rates=(0.01, 0.1),
    page={"cifar10": {**CIFAR10, "image_size": 16, "epochs": 10}},
    quick=dict(epochs=1, per_class=16),
    also=(TRAIN_LOSS,),
    predicts="The first two rungs stay near chance, He's initialisation and batch norm bring most, "
    "residual connections little at 20 layers; the regularisers at the end matter little on the "
    "digits.",
    refuted_by="the top of the ladder no better than a rung in its middle that lacks batch norm.",
)
