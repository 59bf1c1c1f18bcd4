"""Global average pooling in place of fully connected layers."""

from .experiment import ACCURACY, CIFAR10, GAP, Figure, Pair, Trick
from .networks import ALEXNET
from .small_kernels import PARAMS

TRICK = Trick(
    name="avgpool",
    title="Global average pooling",
    claim="It removes the fully connected layers, 90 % of the parameters.",
    source="Lin et al., 2013, Network In Network, table 5",
    url="https://arxiv.org/abs/1312.4400",
    figures=(
        Figure("CIFAR-10 error, fully connected", "11.59 %", "10.41 %"),
        Figure("with dropout", "10.88 %", "10.41 %"),
    ),
    setting=dict(model="small_alexnet", norm="none", image_size=16, epochs=8, optimizer="sgd"),
    arms={
        "fully connected": dict(dropout=0.0),
        "fully connected, dropout": dict(dropout=0.5),
        "global average pooling": dict(without="fully_connected"),
    },
    pairs=(
        Pair("fully connected", "global average pooling"),
        Pair("fully connected, dropout", "global average pooling"),
    ),
    measure=ACCURACY,
    effect=11.59 - 10.41,
    rates=(0.01, 0.03, 0.1),
    page={"cifar10": {**CIFAR10, "epochs": 20}},
    quick=dict(epochs=1, per_class=16),
    networks=(ALEXNET,),
    also=(PARAMS, GAP),
    predicts="93 % fewer parameters and a smaller gap; the accuracy is the same or a little lower, "
    "as the convolutions of so small a network are few.",
    refuted_by="an accuracy that is clearly lower than both of the others.",
)
