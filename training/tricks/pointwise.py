"""1x1 kernels: fewer channels before a larger kernel."""

from .experiment import ACCURACY, CIFAR10, Figure, Pair, Trick
from .networks import INCEPTION
from .small_kernels import MACS, PARAMS

TRICK = Trick(
    name="pointwise",
    title="1x1 kernels",
    claim="A 1x1 convolution is a cheap non-linearity that mixes the channels.",
    source="GoogLeNet (Szegedy et al., 2014), figure 2 and table 1",
    url="https://arxiv.org/abs/1409.4842",
    figures=(
        Figure("module 3a, parameters by table 1's widths", "naive: 5x5 and 3x3 on 192", "159 K"),
    ),
    setting=dict(model="small_inception", image_size=32, epochs=4, optimizer="sgd"),
    arms={"no reduction": dict(without="reduction"), "1x1 reduction": {}},
    pairs=(Pair("no reduction", "1x1 reduction"),),
    measure=ACCURACY,
    effect=0.0,
    rates=(0.03, 0.1),
    page={"cifar10": {**CIFAR10, "epochs": 15}},
    quick=dict(epochs=1, per_class=16),
    networks=(INCEPTION,),
    also=(PARAMS, MACS),
    predicts="The same accuracy within the spread of the seeds, with less than two thirds of the "
    "parameters.",
    refuted_by="a lower accuracy with the reduction, beyond the spread of the seeds.",
)
