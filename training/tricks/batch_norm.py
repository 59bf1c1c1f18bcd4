"""Batch normalisation: fewer steps, larger rates."""

from .experiment import ACCURACY, BEFORE, CIFAR10, STEPS, Figure, Pair, Trick

TRICK = Trick(
    name="batch_norm",
    title="Batch normalisation",
    claim="The accuracy of before in 1/14 of the steps; larger learning rates become possible.",
    source="Ioffe and Szegedy, 2015, Batch Normalization, section 4.2, figure 3",
    url="https://arxiv.org/abs/1502.03167",
    figures=(
        Figure("Inception, steps to 72.2 %", "31.0 million", "2.1 million (rate x5)"),
        Figure("best accuracy", "72.2 %", "74.8 % (rate x30)"),
    ),
    setting=dict(
        model="resnet20_cifar",
        without="residual",
        image_size=16,
        epochs=5,
        optimizer="sgd",
    ),
    arms={"none": dict(norm="none"), "batch norm": dict(norm="batch")},
    pairs=(Pair("none", "batch norm"),),
    measure=BEFORE,
    effect=31.0 / 2.1,
    ratio=True,
    rates=(0.003, 0.01, 0.03, 0.1, 0.3),
    page={"cifar10": {**CIFAR10, "image_size": 16, "epochs": 10}},
    quick=dict(epochs=1, per_class=16),
    also=(STEPS, ACCURACY),
    probed=True,
    predicts="With batch norm the best rate is about ten times larger, and the accuracy that the "
    "network without ends at is reached in a fifth of its steps or fewer.",
    refuted_by="as many steps with batch norm, each arm at its best rate.",
    notes=(
        "1/14 was measured on one network, Inception, on ImageNet.",
        "The measure was the steps to 95 % of the best arm's accuracy at first, which the network "
        "without batch norm does not reach; the claim is of the accuracy that it does reach.",
    ),
)
