"""Asymmetric kernels: 1x7 and 7x1 in place of 7x7."""

from .experiment import ACCURACY, CIFAR10, Figure, Pair, Trick
from .networks import INCEPTION
from .small_kernels import MACS, PARAMS

TRICK = Trick(
    name="asymmetric",
    title="Asymmetric kernels",
    claim="A 7x7 convolution becomes a 1x7 and a 7x1.",
    source="Szegedy et al., 2015, Rethinking the Inception Architecture, section 3.2, figure 6",
    url="https://arxiv.org/abs/1512.00567",
    figures=(Figure("computation of 3x3, as 3x1 and 1x3", "9", "6: 33 % less"),),
    setting=dict(model="small_inception", image_size=32, epochs=4, optimizer="sgd"),
    arms={"7x7": dict(without="asymmetric"), "1x7 and 7x1": {}},
    pairs=(Pair("7x7", "1x7 and 7x1"),),
    measure=ACCURACY,
    effect=0.0,
    rates=(0.03, 0.1),
    page={"cifar10": {**CIFAR10, "epochs": 15}},
    quick=dict(epochs=1, per_class=16),
    networks=(INCEPTION,),
    also=(PARAMS, MACS),
    predicts="The same accuracy within the spread of the seeds, with fewer parameters.",
    refuted_by="a lower accuracy with 1x7 and 7x1, beyond the spread of the seeds.",
)
