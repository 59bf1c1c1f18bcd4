"""Learning rate: large first, small later."""

from .experiment import ACCURACY, CIFAR10, STEPS, TRAIN_LOSS, Figure, Pair, Trick

TRICK = Trick(
    name="learning_rate",
    title="Learning rate",
    claim="The rate is large at first and small later, 0.1 down to below 0.02; adaptive methods "
    "adjust it themselves.",
    source="GoogLeNet (Szegedy et al., 2014), section 6; Inception v3 (2015), section 8",
    url="https://arxiv.org/abs/1409.4842",
    figures=(
        Figure("GoogLeNet", "-", "4 % less every 8 epochs"),
        Figure("Inception v3", "-", "0.94 times every 2 epochs"),
    ),
    setting=dict(
        model="resnet20_cifar",
        image_size=16,
        epochs=5,
        optimizer="sgd",
        schedule="constant",
        warmup=0.0,
    ),
    arms={
        "constant, 0.1": dict(learning_rate=0.1),
        "constant, 0.005": dict(learning_rate=0.005),
        "0.1, decayed": dict(learning_rate=0.1, schedule="exponential", decay_rate=0.5),
        "Adam, constant": dict(optimizer="adam"),
        "Adagrad, constant": dict(optimizer="adagrad"),
    },
    pairs=(
        Pair("constant, 0.1", "0.1, decayed"),
        Pair("constant, 0.005", "0.1, decayed"),
    ),
    measure=ACCURACY,
    effect=1.0,  # the papers do not say what it gained
    rates=(0.003, 0.03),
    page={"cifar10": {**CIFAR10, "image_size": 16, "epochs": 10, "decay_epochs": 4.0}},
    quick=dict(epochs=1, per_class=16),
    also=(STEPS, TRAIN_LOSS),
    predicts="The decayed rate ends best: at the constant large rate the accuracy of the last "
    "epochs jumps, at the small one the network learns too slowly.",
    refuted_by="a constant rate as good as the decayed one in the end.",
    notes=(
        "The rates of the three arms of SGD are the experiment; those of Adam and Adagrad are "
        "searched.",
        "On the digits the large rate was 0.4 in a first run, too much for this network (49 and "
        "54 %): the article's 0.1 took its place.",
    ),
)
