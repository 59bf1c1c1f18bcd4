"""Initialisation: how large the first weights are."""

from .experiment import CIFAR10, TRAIN_LOSS, Figure, Pair, Trick

TRICK = Trick(
    name="initialisation",
    title="Initialisation",
    claim="Weights start as a truncated normal of deviation 0.1, cut at two deviations, and biases "
    "at 0: neither large nor small.",
    source="He et al., 2015, Delving Deep into Rectifiers, section 2.2, figures 2 and 3",
    url="https://arxiv.org/abs/1502.01852",
    figures=(
        Figure("22 layers, ImageNet", "Xavier converges, later", "He starts to learn sooner"),
        Figure("30 layers, ImageNet", "Xavier stalls", "He converges"),
    ),
    setting=dict(
        model="resnet20_cifar",
        without="residual",  # 20 layers in a row, as the networks of the paper
        norm="none",
        image_size=16,
        epochs=4,
        optimizer="sgd",
        schedule="constant",
        clip_norm=10.0,
        shift=0,
    ),
    arms={
        "normal(1.0)": dict(init="normal(1.0)"),
        "zeros": dict(init="zeros"),
        "truncated_normal(0.1)": dict(init="truncated_normal(0.1)"),
        "lecun_normal": dict(init="lecun_normal"),
        "glorot_uniform": dict(init="glorot_uniform"),
        "he_normal": dict(init="he_normal"),
    },
    pairs=(
        Pair("normal(1.0)", "truncated_normal(0.1)"),
        Pair("zeros", "truncated_normal(0.1)"),
        Pair("glorot_uniform", "he_normal"),
    ),
    measure=TRAIN_LOSS,
    effect=1.0,  # the paper has curves: a network that learns against one that does not
    rates=(0.003, 0.03),
    page={"cifar10": {**CIFAR10, "image_size": 16, "epochs": 10}},
    quick=dict(epochs=1, per_class=16),
    probed=True,
    predicts="normal(1.0) and zeros stay at chance, ln 10 = 2.30 nats or worse. "
    "truncated_normal(0.1) learns: 0.1 is close to He's deviation for kernels of 16 to 64 "
    "channels, 0.12 to 0.06. lecun_normal and glorot_uniform, a half of He's variance, are slower "
    "at 20 layers.",
    refuted_by="zeros or normal(1.0) reaching the loss of truncated_normal(0.1).",
)
