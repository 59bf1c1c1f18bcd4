"""Small kernels: two 3x3 convolutions in place of a 5x5."""

from .experiment import ACCURACY, CIFAR10, Figure, Measure, Pair, Trick
from .networks import INCEPTION

PARAMS = Measure("params", "parameters", False, ",.0f")
MACS = Measure("macs", "multiply-accumulates of a picture", False, ",.0f")

TRICK = Trick(
    name="small_kernels",
    title="Small kernels",
    claim="Two 3x3 convolutions for one 5x5: 18/25 of the parameters, the same effect, one more "
    "ReLU.",
    source="Szegedy et al., 2015, Rethinking the Inception Architecture, section 3.1",
    url="https://arxiv.org/abs/1512.00567",
    figures=(
        Figure("parameters and computation of the branch", "25", "18: 28 % less"),
        Figure("accuracy, after 3.86 million operations", "-", "76.2 % linear, 77.2 % with a ReLU"),
    ),
    setting=dict(model="small_inception", image_size=32, epochs=4, optimizer="sgd"),
    arms={"5x5": dict(without="small_kernels"), "two 3x3": {}},
    pairs=(Pair("5x5", "two 3x3"),),
    measure=ACCURACY,
    effect=0.0,  # the claim is as good for less
    rates=(0.03, 0.1),
    page={"cifar10": {**CIFAR10, "epochs": 15}},
    quick=dict(epochs=1, per_class=16),
    networks=(INCEPTION,),
    also=(PARAMS, MACS),
    predicts="The same accuracy within the spread of the seeds, with fewer parameters.",
    refuted_by="a lower accuracy with two 3x3, beyond the spread of the seeds.",
)
