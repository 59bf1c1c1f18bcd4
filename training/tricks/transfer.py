"""Transfer learning: start from weights that were trained on other pictures."""

from .experiment import ACCURACY, PRETRAINED, Figure, Pair, Trick

TRICK = Trick(
    name="transfer",
    title="Transfer learning",
    claim="It is popular because data is scarce.",
    source="Kornblith et al., 2019, Do Better ImageNet Models Transfer Better?, figures 6 and 8",
    url="https://arxiv.org/abs/1805.08974",
    figures=(
        Figure("few pictures a class", "far behind", "most of the accuracy of all pictures"),
        Figure("all pictures, fine-grained classes", "the same", "fewer steps"),
    ),
    setting=dict(
        model="mobilenet_v1_025",
        image_size=32,
        epochs=15,
        optimizer="sgd",
        batch_size=16,
        warmup=0.2,
        classes="6,7,8,9",
        shift=0,
    ),
    pretraining={
        "digits": dict(classes="0,1,2,3,4,5", epochs=8, batch_size=32, learning_rate=0.1),
        "cifar10": dict(
            classes="airplane,automobile,bird,cat,deer", epochs=20, batch_size=64, learning_rate=0.1
        ),
    },
    arms={"random": {}, "pretrained": dict(weights=PRETRAINED)},
    pairs=(Pair("random", "pretrained"),),
    measure=ACCURACY,
    effect=10.0,  # the paper has curves
    rates=(0.01, 0.02),
    axis=("per_class", (100, 30, 10, 5)),
    page={
        "cifar10": dict(classes="dog,frog,horse,ship,truck"),
        "folder": dict(classes=None, image_size=96),  # with --weights
    },
    quick=dict(epochs=1),
    predicts="With 5 and 10 pictures of each digit from 6 to 9 the network that has seen the "
    "digits from 0 to 5 is ahead by ten points or more; with 100 both are equal.",
    refuted_by="the random network as good with 5 pictures a class.",
    notes=(
        "The network is first trained on some of the classes and then on the others; with "
        "--weights mobilenet_v1_025.keras_in1k_no_top it starts from ImageNet's.",
        "On the digits two of three random networks with 100 pictures a class learned nothing in a "
        "first run, at rates up to 0.05: the rates were lowered after it.",
        "On CIFAR-10 the gain of three seeds was within their spread (11 points, -5.4 to 27): two "
        "more were run after that was seen.",
    ),
)
