"""Write `peers.csv`: what each peer counts of each network, and what the papers print.

    python -m tools.peers FOLDER

FOLDER holds `reference/*.csv`, each source's own figures. Which of a peer's models is which of our
networks, and what the papers print, stands here.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

from zoo.errors import ZooError
from zoo.report.peers import FILE

from .csv_files import Row, read, text

# fmt: off
COLUMNS = (
    "network", "peer", "model",
    "params",  # as the peer prints or publishes it
    "counts",  # what enters it besides parameters of the network: aux, statistics, input, headless
    "classes",
    "built",  # a key of `zoo.report.peers.NUMERICS`
    "elsewhere",  # true: its strides stand elsewhere
    "input_size", "gmacs", "aux_in_gmacs",
    "trainable", "nontrainable", "batch_stats", "aux", "aux_batch_stats",
    "where", "note",
)
# fmt: on


def main(folder: Path) -> None:
    FILE.write_text(peers(folder / "reference"), "utf-8")


def peers(reference: Path) -> str:
    """The text of `peers.csv`: a row a network and peer's model, then a row a paper's figures.

    Raises:
      ZooError: a model that the collected tables lack.
    """
    rows = [*_counted(reference), *_declared(reference), *_printed()]
    lines = [COLUMNS, *(tuple(row.get(key, "") for key in COLUMNS) for row in rows)]
    return text(lines)


# --- peers whose models were built and counted ----------------------------------------------------

# The same architecture elsewhere: peers and models of reference/params.csv.
# fmt: off
SAME = dict(
    alexnet=["torchvision alexnet"],
    alexnet_v2=["slim alexnet_v2"],
    convnext_tiny=["torchvision convnext_tiny", "timm convnext_tiny", "keras ConvNeXtTiny",
                   "transformers facebook/convnext-tiny-224"],
    convnext_small=["torchvision convnext_small", "timm convnext_small", "keras ConvNeXtSmall",
                    "transformers facebook/convnext-small-224"],
    convnext_base=["torchvision convnext_base", "timm convnext_base", "keras ConvNeXtBase",
                   "transformers facebook/convnext-base-224"],
    convnext_large=["torchvision convnext_large", "timm convnext_large", "keras ConvNeXtLarge",
                    "transformers facebook/convnext-large-224"],
    convnext_xlarge=["timm convnext_xlarge", "keras ConvNeXtXLarge"],
    convnext_atto=["timm convnext_atto"],
    convnext_femto=["timm convnext_femto"],
    convnext_pico=["timm convnext_pico"],
    convnext_nano=["timm convnext_nano"],
    convnextv2_atto=["timm convnextv2_atto"],
    convnextv2_femto=["timm convnextv2_femto"],
    convnextv2_pico=["timm convnextv2_pico"],
    convnextv2_nano=["timm convnextv2_nano"],
    convnextv2_tiny=["timm convnextv2_tiny"],
    convnextv2_base=["timm convnextv2_base"],
    convnextv2_large=["timm convnextv2_large"],
    convnextv2_huge=["timm convnextv2_huge"],
    densenet121=["torchvision densenet121", "timm densenet121", "keras DenseNet121"],
    densenet161=["torchvision densenet161", "timm densenet161"],
    densenet169=["torchvision densenet169", "timm densenet169", "keras DenseNet169"],
    densenet201=["torchvision densenet201", "timm densenet201", "keras DenseNet201"],
    efficientnet_b0=["torchvision efficientnet_b0", "timm efficientnet_b0",
                     "timm tf_efficientnet_b0", "transformers google/efficientnet-b0",
                     "keras EfficientNetB0"],
    efficientnet_b1=["torchvision efficientnet_b1", "timm efficientnet_b1",
                     "timm tf_efficientnet_b1", "transformers google/efficientnet-b1",
                     "keras EfficientNetB1"],
    efficientnet_b2=["torchvision efficientnet_b2", "timm efficientnet_b2",
                     "timm tf_efficientnet_b2", "transformers google/efficientnet-b2",
                     "keras EfficientNetB2"],
    efficientnet_b3=["torchvision efficientnet_b3", "timm efficientnet_b3",
                     "timm tf_efficientnet_b3", "transformers google/efficientnet-b3",
                     "keras EfficientNetB3"],
    efficientnet_b4=["torchvision efficientnet_b4", "timm efficientnet_b4",
                     "timm tf_efficientnet_b4", "transformers google/efficientnet-b4",
                     "keras EfficientNetB4"],
    efficientnet_b5=["torchvision efficientnet_b5", "timm efficientnet_b5",
                     "timm tf_efficientnet_b5", "transformers google/efficientnet-b5",
                     "keras EfficientNetB5"],
    efficientnet_b6=["torchvision efficientnet_b6", "timm efficientnet_b6",
                     "timm tf_efficientnet_b6", "transformers google/efficientnet-b6",
                     "keras EfficientNetB6"],
    efficientnet_b7=["torchvision efficientnet_b7", "timm efficientnet_b7",
                     "timm tf_efficientnet_b7", "transformers google/efficientnet-b7",
                     "keras EfficientNetB7"],
    efficientnet_lite0=["timm efficientnet_lite0", "timm tf_efficientnet_lite0"],
    efficientnet_lite1=["timm efficientnet_lite1", "timm tf_efficientnet_lite1"],
    efficientnet_lite2=["timm efficientnet_lite2", "timm tf_efficientnet_lite2"],
    efficientnet_lite3=["timm efficientnet_lite3", "timm tf_efficientnet_lite3"],
    efficientnet_lite4=["timm efficientnet_lite4", "timm tf_efficientnet_lite4"],
    efficientnet_v2_s=["torchvision efficientnet_v2_s", "timm efficientnetv2_s",
                       "timm tf_efficientnetv2_s", "keras EfficientNetV2S"],
    efficientnet_v2_m=["torchvision efficientnet_v2_m", "timm efficientnetv2_m",
                       "timm tf_efficientnetv2_m", "keras EfficientNetV2M"],
    efficientnet_v2_l=["torchvision efficientnet_v2_l", "timm efficientnetv2_l",
                       "timm tf_efficientnetv2_l", "keras EfficientNetV2L"],
    efficientnet_v2_b0=["timm tf_efficientnetv2_b0", "keras EfficientNetV2B0"],
    efficientnet_v2_b1=["timm tf_efficientnetv2_b1", "keras EfficientNetV2B1"],
    efficientnet_v2_b2=["timm tf_efficientnetv2_b2", "keras EfficientNetV2B2"],
    efficientnet_v2_b3=["timm tf_efficientnetv2_b3", "keras EfficientNetV2B3"],
    inception_v1=["torchvision googlenet", "torchvision googlenet(aux_logits=False)",
                  "slim inception_v1"],
    inception_v2=["slim inception_v2"],
    inception_v3=["torchvision inception_v3", "torchvision inception_v3(aux_logits=False)",
                  "timm inception_v3", "keras InceptionV3", "slim inception_v3"],
    inception_v4=["timm inception_v4", "slim inception_v4"],
    inception_resnet_v2=["timm inception_resnet_v2", "keras InceptionResNetV2",
                         "slim inception_resnet_v2"],
    mnasnet_140=["timm mnasnet_140"],
    mnasnet_130=["torchvision mnasnet1_3"],
    mnasnet_100=["torchvision mnasnet1_0", "timm mnasnet_100"],
    mnasnet_075=["torchvision mnasnet0_75", "timm mnasnet_075"],
    mnasnet_050=["torchvision mnasnet0_5", "timm mnasnet_050"],
    semnasnet_140=["timm semnasnet_140"],
    semnasnet_100=["timm semnasnet_100"],
    semnasnet_075=["timm semnasnet_075"],
    semnasnet_050=["timm semnasnet_050"],
    mobilenet_v1_125=["timm mobilenetv1_125"],
    mobilenet_v1_100=["keras MobileNet", "timm mobilenetv1_100", "slim mobilenet_v1",
                      "transformers google/mobilenet_v1_1.0_224"],
    mobilenet_v1_075=["keras MobileNet(alpha=0.75)", "slim mobilenet_v1_0.75",
                      "transformers google/mobilenet_v1_0.75_192"],
    mobilenet_v1_050=["keras MobileNet(alpha=0.5)", "slim mobilenet_v1_0.5"],
    mobilenet_v1_025=["keras MobileNet(alpha=0.25)", "slim mobilenet_v1_0.25"],
    mobilenet_v2_140=["timm mobilenetv2_140", "keras MobileNetV2(alpha=1.4)",
                      "slim mobilenet_v2_1.4", "transformers google/mobilenet_v2_1.4_224"],
    mobilenet_v2_130=["keras MobileNetV2(alpha=1.3)", "slim mobilenet_v2_1.3"],
    mobilenet_v2_100=["torchvision mobilenet_v2", "timm mobilenetv2_100", "keras MobileNetV2",
                      "slim mobilenet_v2", "transformers google/mobilenet_v2_1.0_224"],
    mobilenet_v2_075=["timm mobilenetv2_075", "keras MobileNetV2(alpha=0.75)",
                      "slim mobilenet_v2_0.75", "transformers google/mobilenet_v2_0.75_160"],
    mobilenet_v2_050=["timm mobilenetv2_050", "keras MobileNetV2(alpha=0.5)",
                      "slim mobilenet_v2_0.5"],
    mobilenet_v2_035=["timm mobilenetv2_035", "keras MobileNetV2(alpha=0.35)",
                      "slim mobilenet_v2_0.35", "transformers google/mobilenet_v2_0.35_96"],
    mobilenet_v3_large_100=["torchvision mobilenet_v3_large", "timm mobilenetv3_large_100",
                            "timm tf_mobilenetv3_large_100", "keras MobileNetV3Large",
                            "slim mobilenet_v3_large"],
    mobilenet_v3_large_075=["timm mobilenetv3_large_075", "timm tf_mobilenetv3_large_075",
                            "keras MobileNetV3Large(alpha=0.75)"],
    mobilenet_v3_large_minimal_100=["timm tf_mobilenetv3_large_minimal_100",
                                    "keras MobileNetV3Large(minimalistic=True)",
                                    "slim mobilenet_v3_large_minimalistic"],
    mobilenet_v3_small_100=["torchvision mobilenet_v3_small", "timm mobilenetv3_small_100",
                            "timm tf_mobilenetv3_small_100", "keras MobileNetV3Small",
                            "slim mobilenet_v3_small"],
    mobilenet_v3_small_075=["timm mobilenetv3_small_075", "timm tf_mobilenetv3_small_075",
                            "keras MobileNetV3Small(alpha=0.75)"],
    mobilenet_v3_small_050=["timm mobilenetv3_small_050"],
    mobilenetv4_conv_small=["timm mobilenetv4_conv_small"],
    mobilenetv4_conv_medium=["timm mobilenetv4_conv_medium"],
    mobilenetv4_conv_large=["timm mobilenetv4_conv_large"],
    mobilenet_v3_small_minimal_100=["timm tf_mobilenetv3_small_minimal_100",
                                    "keras MobileNetV3Small(minimalistic=True)",
                                    "slim mobilenet_v3_small_minimalistic"],
    nasnet_mobile=["keras NASNetMobile"],
    nasnet_large=["keras NASNetLarge", "timm nasnetalarge"],
    pnasnet5_large=["timm pnasnet5large"],
    regnet_x_200mf=["timm regnetx_002"],
    regnet_x_400mf=["torchvision regnet_x_400mf", "timm regnetx_004_tv"],
    regnet_x_400mf_pycls=["timm regnetx_004"],
    regnet_x_600mf=["timm regnetx_006"],
    regnet_x_800mf=["torchvision regnet_x_800mf", "timm regnetx_008"],
    regnet_x_1_6gf=["torchvision regnet_x_1_6gf", "timm regnetx_016"],
    regnet_x_3_2gf=["torchvision regnet_x_3_2gf", "timm regnetx_032"],
    regnet_x_4gf=["timm regnetx_040"],
    regnet_x_6_4gf=["timm regnetx_064"],
    regnet_x_8gf=["torchvision regnet_x_8gf", "timm regnetx_080"],
    regnet_x_12gf=["timm regnetx_120"],
    regnet_x_16gf=["torchvision regnet_x_16gf", "timm regnetx_160"],
    regnet_x_32gf=["torchvision regnet_x_32gf", "timm regnetx_320"],
    regnet_y_200mf=["timm regnety_002"],
    regnet_y_400mf=["torchvision regnet_y_400mf", "timm regnety_004"],
    regnet_y_600mf=["timm regnety_006"],
    regnet_y_800mf=["torchvision regnet_y_800mf", "timm regnety_008_tv"],
    regnet_y_1_6gf=["torchvision regnet_y_1_6gf", "timm regnety_016"],
    regnet_y_3_2gf=["torchvision regnet_y_3_2gf", "timm regnety_032"],
    regnet_y_4gf=["timm regnety_040", "transformers facebook/regnet-y-040 (RegNetConfig default)"],
    regnet_y_6_4gf=["timm regnety_064"],
    regnet_y_8gf=["torchvision regnet_y_8gf", "timm regnety_080_tv"],
    regnet_y_12gf=["timm regnety_120"],
    regnet_y_16gf=["torchvision regnet_y_16gf", "timm regnety_160"],
    regnet_y_32gf=["torchvision regnet_y_32gf", "timm regnety_320"],
    regnet_y_64gf=["timm regnety_640"],
    regnet_y_128gf=["torchvision regnet_y_128gf", "timm regnety_1280"],
    regnet_y_256gf=["timm regnety_2560"],
    regnet_y_800mf_pycls=["timm regnety_008"],
    regnet_y_8gf_pycls=["timm regnety_080"],
    resnet18=["torchvision resnet18", "timm resnet18", "transformers microsoft/resnet-18"],
    resnet34=["torchvision resnet34", "timm resnet34", "transformers microsoft/resnet-34"],
    resnet50=["torchvision resnet50", "timm resnet50", "transformers microsoft/resnet-50"],
    resnet101=["torchvision resnet101", "timm resnet101", "transformers microsoft/resnet-101"],
    resnet152=["torchvision resnet152", "timm resnet152", "transformers microsoft/resnet-152"],
    resnet26=["timm resnet26"],
    resnet200=["timm resnet200"],
    resnet50_v1=["keras ResNet50"],
    resnet101_v1=["keras ResNet101"],
    resnet152_v1=["keras ResNet152"],
    resnet18d=["timm resnet18d"],
    resnet34d=["timm resnet34d"],
    resnet50d=["timm resnet50d"],
    resnet101d=["timm resnet101d"],
    resnet152d=["timm resnet152d"],
    resnet26d=["timm resnet26d"],
    resnet200d=["timm resnet200d"],
    resnet10t=["timm resnet10t"],
    resnet14t=["timm resnet14t"],
    resnet26t=["timm resnet26t"],
    resnet50t=["timm resnet50t"],
    resnet50c=["timm resnet50c"],
    resnet101c=["timm resnet101c"],
    resnet152c=["timm resnet152c"],
    resnet50s=["timm resnet50s"],
    resnet101s=["timm resnet101s"],
    resnet152s=["timm resnet152s"],
    resnet50_v2=["keras ResNet50V2", "slim resnet_v2_50"],
    resnet101_v2=["keras ResNet101V2", "slim resnet_v2_101"],
    resnet152_v2=["keras ResNet152V2", "slim resnet_v2_152"],
    resnetv2_18=["timm resnetv2_18"],
    resnetv2_34=["timm resnetv2_34"],
    resnetv2_50=["timm resnetv2_50"],
    resnetv2_101=["timm resnetv2_101"],
    resnetv2_152=["timm resnetv2_152"],
    resnetv2_18d=["timm resnetv2_18d"],
    resnetv2_34d=["timm resnetv2_34d"],
    resnetv2_50d=["timm resnetv2_50d"],
    resnetv2_101d=["timm resnetv2_101d"],
    resnetv2_152d=["timm resnetv2_152d"],
    resnetv2_50t=["timm resnetv2_50t"],
    resnext50_32x4d=["torchvision resnext50_32x4d", "timm resnext50_32x4d"],
    resnext101_32x4d=["timm resnext101_32x4d"],
    resnext101_32x8d=["torchvision resnext101_32x8d", "timm resnext101_32x8d"],
    resnext101_64x4d=["torchvision resnext101_64x4d", "timm resnext101_64x4d"],
    seresnet18=["timm seresnet18"],
    seresnet34=["timm seresnet34"],
    seresnet50=["timm seresnet50"],
    seresnet101=["timm seresnet101"],
    seresnet152=["timm seresnet152"],
    seresnext50_32x4d=["timm seresnext50_32x4d"],
    seresnext101_32x4d=["timm seresnext101_32x4d"],
    seresnext101_32x8d=["timm seresnext101_32x8d"],
    seresnext101_64x4d=["timm seresnext101_64x4d"],
    seresnext26d_32x4d=["timm seresnext26d_32x4d"],
    seresnext101d_32x8d=["timm seresnext101d_32x8d"],
    seresnext26t_32x4d=["timm seresnext26t_32x4d"],
    senet154=["timm senet154"],
    shufflenet_v2_x0_5=["torchvision shufflenet_v2_x0_5"],
    shufflenet_v2_x1_0=["torchvision shufflenet_v2_x1_0"],
    shufflenet_v2_x1_5=["torchvision shufflenet_v2_x1_5"],
    shufflenet_v2_x2_0=["torchvision shufflenet_v2_x2_0"],
    squeezenet1_0=["torchvision squeezenet1_0"],
    squeezenet1_1=["torchvision squeezenet1_1"],
    vgg11=["torchvision vgg11", "timm vgg11", "slim vgg_a"],
    vgg11_bn=["torchvision vgg11_bn", "timm vgg11_bn"],
    vgg13=["torchvision vgg13", "timm vgg13"],
    vgg13_bn=["torchvision vgg13_bn", "timm vgg13_bn"],
    vgg16=["torchvision vgg16", "timm vgg16", "slim vgg_16", "keras VGG16"],
    vgg16_bn=["torchvision vgg16_bn", "timm vgg16_bn"],
    vgg19=["torchvision vgg19", "timm vgg19", "slim vgg_19", "keras VGG19"],
    vgg19_bn=["torchvision vgg19_bn", "timm vgg19_bn"],
    wide_resnet50_2=["torchvision wide_resnet50_2", "timm wide_resnet50_2"],
    wide_resnet101_2=["torchvision wide_resnet101_2", "timm wide_resnet101_2"],
    xception=["timm legacy_xception", "keras Xception"],
)
# The same parameters, computed otherwise: where the strides of the bottlenecks stand.
ELSEWHERE = {
    f"resnet{layers}": [f"keras ResNet{layers}", f"slim resnet_v1_{layers}"]
    for layers in (50, 101, 152)
} | {
    f"resnet{layers}_v1": [f"torchvision resnet{layers}", f"timm resnet{layers}",
                           f"transformers microsoft/resnet-{layers}", f"slim resnet_v1_{layers}"]
    for layers in (50, 101, 152)
}
# fmt: on
# What params.csv lacks: timm 1.0.31's, counted in the same way.
# fmt: off
COUNTED = [
    # model                    parameters     BN      gmacs       input
    ("mobilenetv4_conv_small",  "3774024",  "25088", "0.186006", "224"),
    ("mobilenetv4_conv_medium", "9715512",  "67904", "1.080244", "256"),
    ("mobilenetv4_conv_large", "32590864", "149552", "6.376221", "384"),
    ("nasnetalarge",           "88753150", "196668", "23.783415", "331"),
    ("pnasnet5large",          "86057668", "176988", "24.937396", "331"),
]
# fmt: on
KERAS_V1 = ("ResNet50", "ResNet101", "ResNet152")
NO_SCALE = (
    "InceptionV3",
    "InceptionResNetV2",
    "inception_v1",
    "inception_v3",
    "inception_v4",
    "inception_resnet_v2",
)  # fmt: skip


def counted(reference: Path) -> dict[tuple[str, str], Row]:
    """What was counted of each peer's models: lines like those of params.csv, by peer and model."""
    lines = {(line["source"], line["model"]): line for line in read(reference / "params.csv")}
    for model, params, statistics, gmacs, size in COUNTED:
        lines["timm", model] = dict(
            source="timm",
            model=model,
            input_size=size,
            params_trainable=params,
            params_nontrainable=statistics,
            gmacs=gmacs,
            bn_buffers=statistics,
            other_buffers="0",
            aux_params="0",
            aux_bn_buffers="0",
            note="",
        )
    return lines


def _counted(reference: Path) -> Iterator[Row]:
    lines = counted(reference)
    declared = {
        line["model"]: line["num_params"] for line in read(reference / "torchvision_meta.csv")
    }
    for models, elsewhere in ((SAME, False), (ELSEWHERE, True)):
        for network, found in models.items():
            for name in found:
                peer, model = name.split(" ", 1)
                if (peer, model) not in lines:
                    raise ZooError(f"params.csv: has no {name}")
                yield _row(network, peer, lines[peer, model], declared, elsewhere)


def _row(network: str, peer: str, line: Row, declared: dict[str, str], elsewhere: bool) -> Row:
    model, trainable = line["model"], int(line["params_trainable"])
    aux, other = int(line["aux_params"] or 0), int(line["other_buffers"] or 0)
    params = trainable
    if peer == "keras":
        params += int(line["params_nontrainable"])
    elif peer == "torchvision":
        params = int(declared.get(model, trainable))
    counts = {
        "aux": aux > 0 and params >= trainable,
        "statistics": peer == "keras" and int(line["bn_buffers"]) > 0,
        "input": peer == "keras" and other > 0,
    }
    return dict(
        network=network,
        peer=peer,
        model=model,
        input_size=line["input_size"],
        classes="1001" if line["note"].startswith("1001 classes") else "1000",
        built=_built(peer, model),
        trainable=line["params_trainable"],
        nontrainable=line["params_nontrainable"],
        batch_stats=line["bn_buffers"],
        aux=str(aux),
        aux_batch_stats=line["aux_bn_buffers"] or "0",
        params=str(params),
        counts=" ".join(word for word, counted in counts.items() if counted),
        gmacs=line["gmacs"],
        # slim's are of training, where the auxiliary classifiers run
        aux_in_gmacs="true" if peer == "slim" and aux else "",
        elsewhere="true" if elsewhere else "",
        note=_note(peer, line),
    )


def _built(peer: str, model: str) -> str:
    """A key of `NUMERICS`: what the peer's model has that our variant's own has not."""
    if peer == "keras" and model in KERAS_V1:
        return "conv bias"
    return "no scale" if peer in ("keras", "slim") and model in NO_SCALE else ""


def _note(peer: str, line: Row) -> str:
    model = line["model"]
    if (peer, model) == ("torchvision", "googlenet"):
        return f"its file has the aux heads too, in all {int(line['params_trainable']):,}"
    if peer == "keras" and model in KERAS_V1:
        return "strides in the first 1x1 of a stage, biases beside batch norm"
    if peer == "slim" and model.startswith("resnet_v1"):
        return "strides in the last block of a stage"
    return ""


# --- a peer that was not counted: KerasHub declares a number with each file -----------------------

KERAS_HUB = {
    **{f"resnet{n}": f"resnet_{n}_imagenet" for n in (18, 50, 101, 152)},
    **{f"resnet{n}d": f"resnet_vd_{n}_imagenet" for n in (50, 101, 152)},
    **{f"resnet{n}_v2": f"resnet_v2_{n}_imagenet" for n in (50, 101)},
    **{f"vgg{n}": f"vgg_{n}_imagenet" for n in (11, 13, 16, 19)},
    **{f"densenet{n}": f"densenet_{n}_imagenet" for n in (121, 169, 201)},
    "mobilenet_v3_small_100": "mobilenet_v3_small_100_imagenet",
    "mobilenet_v3_large_100": "mobilenet_v3_large_100_imagenet",
}


def _declared(reference: Path) -> Iterator[Row]:
    params = {
        line["identifier"]: line["params"]
        for line in read(reference / "weights.csv")
        if line["source"].startswith("KerasHub")
    }
    for network, model in KERAS_HUB.items():
        with_head = model.startswith("resnet_vd")
        note = "declared with the head, unlike KerasHub's others" if with_head else ""
        if model.startswith("resnet_v2"):
            note = "the number that is declared of its ResNet v1 too, which it fits"
        counts = "" if network.startswith("vgg") else "statistics"
        yield dict(
            network=network,
            peer="kerashub",
            model=model,
            params=params[model],
            classes="1000",
            counts=counts if with_head else f"{counts} headless".strip(),
            note=note,
        )


# --- papers ---------------------------------------------------------------------------------------

V1_5 = "the paper strides in the 1x1 of a block (as our resnet50_v1), this network in the 3x3"
SLIM = "slim's README says {}: 1001 classes, no batch norm"
PYCLS = "torchvision's widths, which are not the paper's own"
TOP = "top RegNetY models"  # a table that has no number of its own
# network, name in the paper, parameters and multiply-adds as printed, where, why they differ.
# Papers that print a figure only in a plot are left out.
# fmt: off
PRINTED = [
    ("alexnet_2012", "AlexNet", "60M", "", "abstract", "rounded down"),
    ("vgg11", "A", "133M", "", "table 2"),
    ("vgg13", "B", "133M", "", "table 2"),
    ("vgg16", "D", "138M", "", "table 2"),
    ("vgg19", "E", "144M", "", "table 2"),
    ("inception_v1_lrn", "GoogLeNet", "", "1.5G", "section 1",
     "a budget that the design was to keep"),
    ("inception_v2", "BN-Inception", "13.6M", "", "section 4.2"),
    ("inception_v3", "Inception-v3", "<25M", "5G", "abstract"),
    ("xception", "Xception", "22855952", "", "table 3"),
    ("squeezenet1_0", "SqueezeNet", "1248424", "", "table 1"),
    ("mobilenet_v1_100", "1.0 MobileNet-224", "4.2M", "569M", "table 6"),
    ("nasnet_mobile", "NASNet-A (4 @ 1056)", "5.3M", "564M", "table 3"),
    ("nasnet_large", "NASNet-A (6 @ 4032)", "88.9M", "23.8G", "table 2",
     "with its BN statistics"),
    ("pnasnet5_mobile", "PNASNet-5 (N = 3, F = 54)", "5.1M", "588M", "ImageNet, mobile setting"),
    ("pnasnet5_large", "PNASNet-5 (N = 4, F = 216)", "86.1M", "25.0G", "ImageNet, large setting"),
    ("mobilenet_v1_075", "0.75 MobileNet-224", "2.6M", "325M", "table 6"),
    ("mobilenet_v1_050", "0.5 MobileNet-224", "1.3M", "149M", "table 6"),
    ("mobilenet_v1_025", "0.25 MobileNet-224", "0.5M", "41M", "table 6"),
    ("mobilenet_v2_100", "MobileNetV2", "3.4M", "300M", "table 4", SLIM.format("3.47M")),
    ("mobilenet_v2_140", "MobileNetV2 (1.4)", "6.9M", "585M", "table 4",
     SLIM.format("6.06M")),
    ("mobilenet_v3_large_100", "V3-Large 1.0", "5.4M", "219M", "table 3"),
    ("mobilenet_v3_large_075", "V3-Large 0.75", "4.0M", "155M", "table 3"),
    ("mobilenet_v3_small_100", "V3-Small 1.0", "2.5M", "56M", "table 3"),
    ("mobilenet_v3_small_075", "V3-Small 0.75", "2.0M", "44M", "table 3"),
    ("resnet18", "ResNet-18", "", "1.8G", "table 1"),
    ("resnet34", "ResNet-34", "", "3.6G", "table 1", "plain34, without projections, agrees"),
    ("resnet50", "ResNet-50", "", "3.8G", "table 1", V1_5),
    ("resnet101", "ResNet-101", "", "7.6G", "table 1", V1_5),
    ("resnet152", "ResNet-152", "", "11.3G", "table 1", V1_5),
    ("resnet50_v1", "ResNet-50", "", "3.8G", "table 1", "SENet's table 2 says 3.86"),
    ("resnet101_v1", "ResNet-101", "", "7.6G", "table 1"),
    ("resnet152_v1", "ResNet-152", "", "11.3G", "table 1"),
    ("plain34", "34-layer plain", "", "3.6G", "section 3.3"),
    ("resnet20_cifar", "ResNet-20", "0.27M", "", "table 6"),
    ("resnet32_cifar", "ResNet-32", "0.46M", "", "table 6"),
    ("resnet44_cifar", "ResNet-44", "0.66M", "", "table 6"),
    ("resnet56_cifar", "ResNet-56", "0.85M", "", "table 6"),
    ("resnet110_cifar", "ResNet-110", "1.7M", "", "table 6"),
    ("resnet50d", "ResNet-50-D", "25M", "4.3G", "table 5", "rounded down"),
    ("resnext50_32x4d", "ResNeXt-50 (32x4d)", "25.0M", "4.2G", "table 1"),
    ("resnet50", "ResNet-50", "25.5M", "4.1G", "arXiv:1611.05431, table 1",
     "rounded down"),
    ("seresnet50", "SE-ResNet-50", "28.1M", "", "table 10"),
    ("seresnet50", "SE-ResNet-50", "", "3.87G", "table 2", V1_5),
    ("wide_resnet50_2", "WRN-50-2-bottleneck", "68.9M", "", "table 8"),
    ("densenet201", "DenseNet-201", "20M", "", "section 4.4"),
    ("shufflenet_v2_x0_5", "ShuffleNet v2 0.5x", "", "41M", "table 8"),
    ("shufflenet_v2_x1_0", "ShuffleNet v2 1x", "", "146M", "table 8"),
    ("shufflenet_v2_x1_5", "ShuffleNet v2 1.5x", "", "299M", "table 8"),
    ("shufflenet_v2_x2_0", "ShuffleNet v2 2x", "", "591M", "table 8"),
    ("semnasnet_100", "MnasNet-A1", "3.9M", "312M", "table 1"),
    ("efficientnet_b0", "EfficientNet-B0", "5.3M", "0.39G", "table 2"),
    ("efficientnet_b1", "EfficientNet-B1", "7.8M", "0.70G", "table 2"),
    ("efficientnet_b2", "EfficientNet-B2", "9.2M", "1.0G", "table 2"),
    ("efficientnet_b3", "EfficientNet-B3", "12M", "1.8G", "table 2"),
    ("efficientnet_b4", "EfficientNet-B4", "19M", "4.2G", "table 2"),
    ("efficientnet_b5", "EfficientNet-B5", "30M", "9.9G", "table 2"),
    ("efficientnet_b6", "EfficientNet-B6", "43M", "19G", "table 2"),
    ("efficientnet_b7", "EfficientNet-B7", "66M", "37G", "table 2"),
    ("efficientnet_v2_s", "EfficientNetV2-S", "22M", "8.8G", "table 7", "figure 1 says 24M"),
    ("efficientnet_v2_m", "EfficientNetV2-M", "54M", "24G", "table 7"),
    ("efficientnet_v2_l", "EfficientNetV2-L", "120M", "53G", "table 7"),
    ("regnet_y_400mf", "RegNetY-400MF", "4.3M", "0.4G", TOP),
    ("regnet_y_600mf", "RegNetY-600MF", "6.1M", "0.6G", TOP),
    ("regnet_y_800mf", "RegNetY-800MF", "6.3M", "0.8G", TOP, PYCLS),
    ("regnet_y_1_6gf", "RegNetY-1.6GF", "11.2M", "1.6G", TOP),
    ("regnet_y_3_2gf", "RegNetY-3.2GF", "19.4M", "3.2G", TOP),
    ("regnet_y_4gf", "RegNetY-4.0GF", "20.6M", "4.0G", TOP),
    ("regnet_y_6_4gf", "RegNetY-6.4GF", "30.6M", "6.4G", TOP),
    ("regnet_y_8gf", "RegNetY-8.0GF", "39.2M", "8.0G", TOP, PYCLS),
    ("regnet_y_12gf", "RegNetY-12GF", "51.8M", "12.1G", TOP),
    ("regnet_y_16gf", "RegNetY-16GF", "83.6M", "15.9G", TOP),
    ("regnet_y_32gf", "RegNetY-32GF", "145.0M", "32.3G", TOP),
    ("convnext_tiny", "ConvNeXt-T", "29M", "4.5G", "table 1"),
    ("convnext_small", "ConvNeXt-S", "50M", "8.7G", "table 1"),
    ("convnext_base", "ConvNeXt-B", "89M", "15.4G", "table 1"),
    ("convnext_large", "ConvNeXt-L", "198M", "34.4G", "table 1"),
    ("convnext_xlarge", "ConvNeXt-XL", "350M", "60.9G", "table 1"),
]
# fmt: on


def _printed() -> Iterator[Row]:
    for network, model, params, macs, where, *note in PRINTED:
        yield dict(
            network=network,
            peer="paper",
            model=model,
            classes="10" if network.endswith("_cifar") else "1000",
            params=params,
            gmacs=macs,
            where=where,
            note=" ".join(note),
        )


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tools.peers FOLDER")
    main(Path(sys.argv[1]))
