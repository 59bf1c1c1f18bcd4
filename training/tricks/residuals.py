"""Residual connections: depth becomes trainable."""

from .experiment import ACCURACY, CIFAR10, TRAIN_LOSS, Figure, Pair, Trick

TRICK = Trick(
    name="residuals",
    title="Residual connections",
    claim="A depth of 152 layers becomes trainable.",
    source="He et al., 2015, Deep Residual Learning, tables 2 and 6",
    url="https://arxiv.org/abs/1512.03385",
    figures=(
        Figure("34 layers, ImageNet error", "28.54 %", "25.03 %"),
        Figure("20 to 110 layers, CIFAR-10 error", "rises (figure 6)", "8.75 to 6.43 %"),
    ),
    setting=dict(image_size=16, per_class=44, batch_size=16, epochs=3, optimizer="sgd", warmup=0.2),
    arms={"plain": dict(without="residual"), "residual": {}},
    pairs=(Pair("plain", "residual"),),
    measure=TRAIN_LOSS,
    effect=0.2,  # figure 6 has curves; at 56 layers the plain network's loss is far above
    rates=(0.003, 0.03),
    axis=("model", ("resnet20_cifar", "resnet56_cifar", "resnet110_cifar")),
    page={"cifar10": {**CIFAR10, "image_size": 16, "per_class": 250, "epochs": 10}},
    page_rates={"cifar10": (0.03, 0.1)},
    quick=dict(epochs=1, per_class=16),
    also=(ACCURACY,),
    probed=True,
    predicts="At 20 layers both learn; at 56 the plain network is behind, at 110 it does not "
    "learn. Its gradients at the first step grow towards the stem, the residual network's hardly "
    "do.",
    refuted_by="a plain network of 110 layers as good as the residual one.",
    notes=(
        "On the digits the rates were 0.03 and 0.1 at first, at which no network of 110 layers "
        "learned within four epochs; they were lowered after that was seen. The paper, too, starts "
        "its 110 layers at a lower rate.",
    ),
)
