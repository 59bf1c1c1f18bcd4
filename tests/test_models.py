"""Every network: what it counts, what it accepts, and that it learns. Holds THE TABLE."""

import functools
import inspect
from dataclasses import dataclass, replace
from typing import NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import tools.peers
import zoo
from training.state import flat, take_apart
from zoo import layers, ops, registry
from zoo.context import Spec
from zoo.init import INITIALIZERS, WITH_DEVIATION, initializer
from zoo.layers import Conv, Dense, Dropout, FlattenAt, GlobalAvgPool, MaxPool, Network, Separable
from zoo.models import (
    alexnet,
    convnext,
    convnext_v2,
    densenet,
    efficientnet,
    efficientnet_lite,
    efficientnet_v2,
    inception_resnet_v2,
    inception_v1,
    inception_v2,
    inception_v3,
    inception_v4,
    mobilenet_v4,
    nasnet,
    regnet,
    resnet,
    resnet_d,
    resnet_preact,
    resnet_v2,
    resnext,
    seresnet,
    shufflenet_v2,
    vgg,
    wide_resnet,
    xception,
)
from zoo.models.resnet_v2 import PreAct
from zoo.report import memory, peers
from zoo.runtime import calling

MODELS = zoo.list_models()
# The first of each family stands for all in the checks below THE TABLE; `-m slow` checks the rest.
FIRST = list({v.family: v.name for v in reversed(registry.variants().values())}.values())
every_model = pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if n in FIRST else pytest.mark.slow) for n in MODELS],
)

# --- THE TABLE -----------------------------------------------------------------------------------


class Row(NamedTuple):
    """One network as a peer counts it."""

    name: str
    params: int  # trainable
    batch_stats: int
    gmacs: float  # to the peer's six decimals, at `input_size`
    input_size: int
    source: str  # peer and its model; "paper" where no peer has the network
    classes: int = 1000


# Rows from a paper were added up by hand from its table, before the code was asked. For example
# alexnet_2012: 121*3*96+96, 25*48*256+256, 9*256*384+384, 9*192*384+384, 9*192*256+256,
# 9216*4096+4096, 4096*4096+4096, 4096*1000+1000; nin_imagenet: 34,944+2*9,312; 614,656+2*65,792;
# 885,120+2*147,840; 3,539,968+1,049,600+1,025,000.
# fmt: off
TABLE = [
    #    network             parameters   BN stats    G MACs  input  whose numbers
    Row("alexnet",           61_100_840,         0,  0.714188, 224, "torchvision alexnet"),
    Row("alexnet_2012",      60_965_224,         0,  0.724407, 227, "paper"),
    Row("alexnet_v2",        50_303_912,         0,  0.736556, 224, "slim alexnet_v2"),
    Row("convnext_tiny",  28_589_128,         0,  4.455531, 224, "torchvision convnext_tiny"),
    Row("convnext_small", 50_223_688,         0,  8.683712, 224, "torchvision convnext_small"),
    Row("convnext_base",  88_591_464,         0, 15.354729, 224, "torchvision convnext_base"),
    Row("convnext_large", 197_767_336,         0, 34.361434, 224, "torchvision convnext_large"),
    Row("convnext_xlarge", 350_196_968,         0, 60.921031, 224, "timm convnext_xlarge"),
    Row("convnext_atto",      3_695_520,         0,  0.547332, 224, "timm convnext_atto"),
    Row("convnext_femto",     5_217_784,         0,  0.779630, 224, "timm convnext_femto"),
    Row("convnext_pico",      9_045_672,         0,  1.367055, 224, "timm convnext_pico"),
    Row("convnext_nano",     15_593_560,         0,  2.445528, 224, "timm convnext_nano"),
    Row("convnextv2_atto",    3_708_400,         0,  0.547332, 224, "timm convnextv2_atto"),
    Row("convnextv2_femto",   5_233_240,         0,  0.779630, 224, "timm convnextv2_femto"),
    Row("convnextv2_pico",    9_066_280,         0,  1.367055, 224, "timm convnextv2_pico"),
    Row("convnextv2_nano",   15_623_800,         0,  2.445528, 224, "timm convnextv2_nano"),
    Row("convnextv2_tiny",   28_635_496,         0,  4.455531, 224, "timm convnextv2_tiny"),
    Row("convnextv2_base",   88_717_800,         0, 15.354729, 224, "timm convnextv2_base"),
    Row("convnextv2_large", 197_956_840,         0, 34.361434, 224, "timm convnextv2_large"),
    Row("convnextv2_huge",  660_289_640,         0,337.724795, 384, "timm convnextv2_huge"),
    Row("densenet121",     7_978_856,    83_648,  2.834162, 224, "torchvision densenet121"),
    Row("densenet161",    28_681_000,   219_936,  7.727907, 224, "torchvision densenet161"),
    Row("densenet169",    14_149_480,   158_400,  3.359843, 224, "torchvision densenet169"),
    Row("densenet201",    20_013_928,   229_056,  4.291366, 224, "torchvision densenet201"),
    Row("efficientnet_b0",    5_288_548,    42_016,  0.385815, 224, "torchvision efficientnet_b0"),
    Row("efficientnet_b1",    7_794_184,    62_048,  0.686803, 240, "torchvision efficientnet_b1"),
    Row("efficientnet_b2",    9_109_994,    67_568,  0.993562, 260, "timm tf_efficientnet_b2"),
    Row("efficientnet_b3",   12_233_232,    87_296,  1.827141, 300, "torchvision efficientnet_b3"),
    Row("efficientnet_b4",   19_341_616,   125_200,  4.393771, 380, "torchvision efficientnet_b4"),
    Row("efficientnet_b5",   30_389_784,   172_736, 10.266385, 456, "torchvision efficientnet_b5"),
    Row("efficientnet_b6",   43_040_704,   224_432, 19.067594, 528, "torchvision efficientnet_b6"),
    Row("efficientnet_b7",   66_347_960,   310_720, 37.745884, 600, "torchvision efficientnet_b7"),
    Row("efficientnet_lite0",   4_652_008,    42_016,  0.385188, 224, "timm efficientnet_lite0"),
    Row("efficientnet_lite1",   5_416_680,    53_664,  0.600185, 240, "timm efficientnet_lite1"),
    Row("efficientnet_lite2",   6_092_072,    58_096,  0.859736, 260, "timm efficientnet_lite2"),
    Row("efficientnet_lite3",   8_197_096,    76_672,  1.607555, 300, "timm efficientnet_lite3"),
    Row("efficientnet_lite4",  13_006_568,   112_368,  3.943564, 380, "timm efficientnet_lite4"),
    Row("efficientnet_v2_s", 21_458_488,   153_872,  8.365617, 384,
        "torchvision efficientnet_v2_s"),
    Row("efficientnet_v2_m", 54_139_356,   292_032, 24.582460, 480,
        "torchvision efficientnet_v2_m"),
    Row("efficientnet_v2_l", 118_515_272,   512_576, 56.079699, 480,
        "torchvision efficientnet_v2_l"),
    Row("efficientnet_v2_b0", 7_139_704,    60_608,  0.718086, 224, "keras EfficientNetV2B0"),
    Row("efficientnet_v2_b1", 8_141_052,    71_072,  1.196819, 240, "keras EfficientNetV2B1"),
    Row("efficientnet_v2_b2", 10_096_086,    82_288,  1.697543, 260, "keras EfficientNetV2B2"),
    Row("efficientnet_v2_b3", 14_358_406,   109_216,  3.011459, 300, "keras EfficientNetV2B3"),
    Row("inception_v1",       6_624_904,    14_560,  1.498376, 224, "torchvision googlenet"),
    Row("inception_v1_lrn",   6_998_552,         0,  1.582672, 224, "paper"),
    Row("inception_v2",      11_179_361,    19_776,  1.934858, 224, "slim inception_v2", 1001),
    Row("inception_v3",      23_834_568,    34_432,  5.713216, 299, "timm inception_v3"),
    Row("inception_v4",      42_679_816,    63_168, 12.253975, 299, "timm inception_v4"),
    Row("inception_resnet_v2", 55_843_464,    60_544, 13.155794, 299, "timm inception_resnet_v2"),
    Row("mnasnet_140",        7_115_728,    52_448,  0.588799, 224, "timm mnasnet_140"),
    Row("mnasnet_130",        6_282_256,    48_816,  0.526362, 224, "torchvision mnasnet1_3"),
    Row("mnasnet_100",        4_383_312,    37_920,  0.314416, 224, "torchvision mnasnet1_0"),
    Row("mnasnet_075",        3_170_208,    29_808,  0.215493, 224, "torchvision mnasnet0_75"),
    Row("mnasnet_050",        2_218_512,    20_624,  0.104456, 224, "torchvision mnasnet0_5"),
    Row("semnasnet_140",      6_105_992,    46_016,  0.586318, 224, "timm semnasnet_140"),
    Row("semnasnet_100",      3_887_038,    33_488,  0.311579, 224, "timm semnasnet_100"),
    Row("semnasnet_075",      2_912_278,    26_832,  0.223448, 224, "timm semnasnet_075"),
    Row("semnasnet_050",      2_082_006,    18_400,  0.103163, 224, "timm semnasnet_050"),
    Row("mobilenet_v1_125",   6_270_840,    27_360,  0.879517, 224, "timm mobilenetv1_125"),
    Row("mobilenet_v1_100",   4_231_976,    21_888,  0.568740, 224, "keras MobileNet"),
    Row("mobilenet_v1_075",   2_585_560,    16_416,  0.325400, 224, "keras MobileNet(alpha=0.75)"),
    Row("mobilenet_v1_050",   1_331_592,    10_944,  0.149497, 224, "keras MobileNet(alpha=0.5)"),
    Row("mobilenet_v1_025",     470_072,     5_472,  0.041030, 224, "keras MobileNet(alpha=0.25)"),
    Row("mobilenet_v2_140",   6_108_776,    47_936,  0.582196, 224, "timm mobilenetv2_140"),
    Row("mobilenet_v2_130",   5_386_792,    44_256,  0.509375, 224, "keras MobileNetV2(alpha=1.3)"),
    Row("mobilenet_v2_100",   3_504_872,    34_112,  0.300774, 224, "torchvision mobilenet_v2"),
    Row("mobilenet_v2_075",   2_636_424,    26_640,  0.209070, 224, "timm mobilenetv2_075"),
    Row("mobilenet_v2_050",   1_968_680,    18_544,  0.097132, 224, "timm mobilenetv2_050"),
    Row("mobilenet_v2_035",   1_677_128,    14_080,  0.059286, 224, "timm mobilenetv2_035"),
    Row("mobilenet_v3_large_100", 5_483_032,    24_400,  0.216590, 224,
        "torchvision mobilenet_v3_large"),
    Row("mobilenet_v3_large_075", 3_993_528,    19_088,  0.154561, 224,
        "timm mobilenetv3_large_075"),
    Row("mobilenet_v3_large_minimal_100", 3_924_288,    24_400,  0.209137, 224,
        "timm tf_mobilenetv3_large_minimal_100"),
    Row("mobilenet_v3_small_100", 2_542_856,    12_112,  0.056510, 224,
        "torchvision mobilenet_v3_small"),
    Row("mobilenet_v3_small_075", 2_041_872,     9_680,  0.043399, 224,
        "timm mobilenetv3_small_075"),
    Row("mobilenet_v3_small_050",   1_593_224,     6_496,  0.024189, 224,
        "timm mobilenetv3_small_050"),
    Row("mobilenet_v3_small_minimal_100", 2_044_736,    12_112,  0.052288, 224,
        "timm tf_mobilenetv3_small_minimal_100"),
    Row("mobilenetv4_conv_small",   3_774_024,    25_088,  0.186006, 224,
        "timm mobilenetv4_conv_small"),
    Row("mobilenetv4_conv_medium",  9_715_512,    67_904,  1.080244, 256,
        "timm mobilenetv4_conv_medium"),
    Row("mobilenetv4_conv_large",  32_590_864,   149_552,  6.376221, 384,
        "timm mobilenetv4_conv_large"),
    Row("nasnet_mobile",      5_289_978,    36_738,  0.563639, 224, "keras NASNetMobile"),
    Row("nasnet_large",      88_753_150,   196_668, 23.783415, 331, "keras NASNetLarge"),
    Row("pnasnet5_mobile",    5_064_487,    33_664,  0.587293, 224, "paper"),
    Row("pnasnet5_large",    86_057_668,   176_988, 24.937396, 331, "timm pnasnet5large"),
    Row("regnet_x_200mf",     2_684_792,    20_848,  0.199040, 224, "timm regnetx_002"),
    Row("regnet_x_400mf",     5_495_976,    37_856,  0.413813, 224, "torchvision regnet_x_400mf"),
    Row("regnet_x_400mf_pycls",   5_157_512,    36_672,  0.397678, 224, "timm regnetx_004"),
    Row("regnet_x_600mf",     6_196_040,    33_280,  0.600890, 224, "timm regnetx_006"),
    Row("regnet_x_800mf",     7_259_656,    37_312,  0.799700, 224, "torchvision regnet_x_800mf"),
    Row("regnet_x_1_6gf",     9_190_136,    43_504,  1.602850, 224, "torchvision regnet_x_1_6gf"),
    Row("regnet_x_3_2gf",    15_296_552,    62_560,  3.176622, 224, "torchvision regnet_x_3_2gf"),
    Row("regnet_x_4gf",      22_118_248,    76_064,  3.964499, 224, "timm regnetx_040"),
    Row("regnet_x_6_4gf",    26_209_256,    74_208,  6.460291, 224, "timm regnetx_064"),
    Row("regnet_x_8gf",      39_572_648,    90_464,  7.995132, 224, "torchvision regnet_x_8gf"),
    Row("regnet_x_12gf",     46_106_056,    96_384, 12.086678, 224, "timm regnetx_120"),
    Row("regnet_x_16gf",     54_278_536,   111_168, 15.940755, 224, "torchvision regnet_x_16gf"),
    Row("regnet_x_32gf",    107_811_560,   162_016, 31.735930, 224, "torchvision regnet_x_32gf"),
    Row("regnet_y_200mf",  3_162_996,    20_848,  0.199514, 224, "timm regnety_002"),
    Row("regnet_y_400mf",  4_344_144,    27_152,  0.401843, 224, "torchvision regnet_y_400mf"),
    Row("regnet_y_600mf",  6_055_160,    29_760,  0.601221, 224, "timm regnety_006"),
    Row("regnet_y_800mf",  6_432_512,    30_432,  0.833856, 224, "torchvision regnet_y_800mf"),
    Row("regnet_y_1_6gf", 11_202_430,    52_672,  1.612076, 224, "torchvision regnet_y_1_6gf"),
    Row("regnet_y_3_2gf", 19_436_338,    66_160,  3.176483, 224, "torchvision regnet_y_3_2gf"),
    Row("regnet_y_4gf",   20_646_656,    62_272,  3.973288, 224, "timm regnety_040"),
    Row("regnet_y_6_4gf", 30_583_252,    82_432,  6.355205, 224, "timm regnety_064"),
    Row("regnet_y_8gf",   39_381_472,    86_528,  8.473071, 224, "torchvision regnet_y_8gf"),
    Row("regnet_y_12gf",  51_822_544,    96_384, 12.092377, 224, "timm regnety_120"),
    Row("regnet_y_16gf",  83_590_140,   122_816, 15.911510, 224, "torchvision regnet_y_16gf"),
    Row("regnet_y_32gf", 145_046_770,   158_288, 32.279553, 224, "torchvision regnet_y_32gf"),
    Row("regnet_y_64gf", 281_378_786,  221_136, 188.220945, 384, "timm regnety_640"),
    Row("regnet_y_128gf", 644_812_894, 415_072, 374.570006, 384, "torchvision regnet_y_128gf"),
    Row("regnet_y_256gf", 1_282_601_138, 586_420, 747.236374, 384, "timm regnety_2560"),
    Row("regnet_y_800mf_pycls",   6_263_168,    29_888,  0.797177, 224, "timm regnety_008"),
    Row("regnet_y_8gf_pycls",  39_180_068,    85_744,  7.963057, 224, "timm regnety_080"),
    Row("resnet18",          11_689_512,     9_600,  1.814073, 224, "torchvision resnet18"),
    Row("resnet34",          21_797_672,    17_024,  3.663761, 224, "torchvision resnet34"),
    Row("resnet50",          25_557_032,    53_120,  4.089184, 224, "torchvision resnet50"),
    Row("resnet101",         44_549_160,   105_344,  7.801405, 224, "torchvision resnet101"),
    Row("resnet152",         60_192_808,   151_424, 11.513627, 224, "torchvision resnet152"),
    Row("resnet26",          15_995_176,    30_848,  2.342257, 224, "timm resnet26"),
    Row("resnet200",         64_673_832,   176_000, 15.007482, 224, "timm resnet200"),
    Row("resnet50_v1",       25_583_592,    53_120,  3.857973, 224, "keras ResNet50"),
    Row("resnet101_v1",      44_601_832,   105_344,  7.570194, 224, "keras ResNet101"),
    Row("resnet152_v1",      60_268_520,   151_424, 11.282416, 224, "keras ResNet152"),
    # resnet18 and 34 less the 173,824 parameters of their three projections
    Row("plain18",           11_515_688,     7_808,  1.794806, 224, "paper"),
    Row("plain34",           21_623_848,    15_232,  3.644494, 224, "paper"),
    # with 10 classes 269_722, 464_154, 658_586, 853_018 and 1_727_962
    Row("resnet20_cifar",       334_072,     1_376,  0.040614,  32, "paper"),
    Row("plain20_cifar",       334_072,     1_376,  0.040614,  32, "paper"),
    Row("resnet32_cifar",       528_504,     2_272,  0.068926,  32, "paper"),
    Row("resnet44_cifar",       722_936,     3_168,  0.097238,  32, "paper"),
    Row("resnet56_cifar",       917_368,     4_064,  0.125549,  32, "paper"),
    Row("resnet110_cifar",    1_792_312,     8_096,  0.252951,  32, "paper"),
    # MLPerf Tiny's Keras file: 78_666 in all
    Row("resnet8_mlperf",        78_186,       480,  0.012502,  32, "paper", 10),
    Row("resnet18d",         11_708_744,     9_728,  2.053714, 224, "timm resnet18d"),
    Row("resnet34d",         21_816_904,    17_152,  3.903402, 224, "timm resnet34d"),
    Row("resnet50d",         25_576_264,    53_248,  4.328825, 224, "timm resnet50d"),
    Row("resnet101d",        44_568_392,   105_472, 10.501964, 256, "timm resnet101d"),
    Row("resnet152d",        60_212_040,   151_552, 15.350579, 256, "timm resnet152d"),
    Row("resnet26d",         16_014_408,    30_976,  2.581897, 224, "timm resnet26d"),
    Row("resnet200d",        64_693_064,   176_128, 19.913982, 256, "timm resnet200d"),
    Row("resnet10t",          5_435_488,     5_872,  0.698688, 176, "timm resnet10t"),
    Row("resnet14t",         10_081_632,    19_440,  1.067619, 176, "timm resnet14t"),
    Row("resnet26t",         16_011_872,    30_960,  3.330359, 256, "timm resnet26t"),
    Row("resnet50t",         25_573_728,    53_232,  4.297214, 224, "timm resnet50t"),
    Row("resnet50c",         25_576_264,    53_248,  4.328825, 224, "timm resnet50c"),
    Row("resnet101c",        44_568_392,   105_472,  8.041046, 224, "timm resnet101c"),
    Row("resnet152c",        60_212_040,   151_552, 11.753267, 224, "timm resnet152c"),
    Row("resnet50s",         25_680_808,    53_504,  5.444338, 224, "timm resnet50s"),
    Row("resnet101s",        44_672_936,   105_728,  9.156559, 224, "timm resnet101s"),
    Row("resnet152s",        60_316_584,   151_808, 12.868780, 224, "timm resnet152s"),
    Row("resnet50_v2",       25_568_360,    45_440,  3.482255, 224, "keras ResNet50V2"),
    Row("resnet101_v2",      44_577_896,    97_664,  7.194477, 224, "keras ResNet101V2"),
    Row("resnet152_v2",      60_236_904,   143_744, 10.906698, 224, "keras ResNet152V2"),
    Row("resnetv2_18",       11_687_720,     7_808,  1.814073, 224, "timm resnetv2_18"),
    Row("resnetv2_34",       21_795_880,    15_232,  3.663761, 224, "timm resnetv2_34"),
    Row("resnetv2_50",       25_549_352,    45_440,  4.089184, 224, "timm resnetv2_50"),
    Row("resnetv2_101",      44_541_480,    97_664,  7.801405, 224, "timm resnetv2_101"),
    Row("resnetv2_152",      60_185_128,   143_744, 11.513627, 224, "timm resnetv2_152"),
    Row("resnetv2_18d",      11_706_952,     7_936,  2.053714, 224, "timm resnetv2_18d"),
    Row("resnetv2_34d",      21_815_112,    15_360,  3.903402, 224, "timm resnetv2_34d"),
    Row("resnetv2_50d",      25_568_584,    45_568,  4.328825, 224, "timm resnetv2_50d"),
    Row("resnetv2_101d",     44_560_712,    97_792,  8.041046, 224, "timm resnetv2_101d"),
    Row("resnetv2_152d",     60_204_360,   143_872, 11.753267, 224, "timm resnetv2_152d"),
    Row("resnetv2_50t",      25_566_048,    45_552,  4.297214, 224, "timm resnetv2_50t"),
    Row("resnext50_32x4d",   25_028_904,    68_224,  4.230480, 224, "torchvision resnext50_32x4d"),
    Row("resnext101_32x4d",  44_177_704,   137_856,  7.969997, 224, "timm resnext101_32x4d"),
    Row("resnext101_32x8d",  88_791_336,   202_880, 16.414015, 224, "torchvision resnext101_32x8d"),
    Row("resnext101_64x4d",  83_455_272,   202_880, 15.460270, 224, "torchvision resnext101_64x4d"),
    Row("seresnet18",        11_779_624,     9_600,  1.814161, 224, "timm seresnet18"),
    Row("seresnet34",        21_960_416,    17_024,  3.663920, 224, "timm seresnet34"),
    Row("seresnet50",        28_088_024,    53_120,  4.091699, 224, "timm seresnet50"),
    Row("seresnet101",       49_326_872,   105_344,  7.806149, 224, "timm seresnet101"),
    Row("seresnet152",       66_821_848,   151_424, 11.520205, 224, "timm seresnet152"),
    Row("seresnext50_32x4d",  27_559_896,    68_224,  4.232995, 224, "timm seresnext50_32x4d"),
    Row("seresnext101_32x4d",  48_955_416,   137_856,  7.974740, 224, "timm seresnext101_32x4d"),
    Row("seresnext101_32x8d",  93_569_048,   202_880, 16.418759, 224, "timm seresnext101_32x8d"),
    Row("seresnext101_64x4d",  88_232_984,   202_880, 15.465013, 224, "timm seresnext101_64x4d"),
    Row("seresnext26d_32x4d",  16_809_512,    38_656,  2.711740, 224, "timm seresnext26d_32x4d"),
    Row("seresnext101d_32x8d",  93_588_280,   203_008, 16.658399, 224, "timm seresnext101d_32x8d"),
    Row("seresnext26t_32x4d",  16_806_976,    38_640,  2.680130, 224, "timm seresnext26t_32x4d"),
    Row("senet154",         115_088_984,   247_552, 20.688364, 224, "timm senet154"),
    # with 10 classes 1_971_640, the paper's 1.97 M
    Row("airbench94_cifar",   2_225_080,     2_304,  0.118401,  32, "paper"),
    # with 10 classes 1_649_402, as in table 1 of the paper
    Row("inception_cifar",   1_983_032,     3_424,  0.204552,  28, "paper"),
    Row("nin_imagenet",       7_595_176,         0,  1.100189, 224, "paper"),
    Row("nin_cifar",          1_158_056,         0,  0.234652,  32, "paper"),
    Row("shufflenet_v2_x0_5", 1_366_792,     7_952,  0.040476, 224,
        "torchvision shufflenet_v2_x0_5"),
    Row("shufflenet_v2_x1_0", 2_278_604,    16_180,  0.144908, 224,
        "torchvision shufflenet_v2_x1_0"),
    Row("shufflenet_v2_x1_5", 3_503_624,    23_440,  0.295759, 224,
        "torchvision shufflenet_v2_x1_5"),
    Row("shufflenet_v2_x2_0", 7_393_996,    33_716,  0.583253, 224,
        "torchvision shufflenet_v2_x2_0"),
    Row("squeezenet1_0",      1_248_424,         0,  0.818925, 224, "torchvision squeezenet1_0"),
    Row("squeezenet1_1",      1_235_496,         0,  0.349152, 224, "torchvision squeezenet1_1"),
    Row("vgg11",            132_863_336,         0,  7.609090, 224, "torchvision vgg11"),
    Row("vgg11_bn",         132_868_840,     5_504,  7.609090, 224, "torchvision vgg11_bn"),
    Row("vgg13",            133_047_848,         0, 11.308466, 224, "torchvision vgg13"),
    Row("vgg13_bn",         133_053_736,     5_888, 11.308466, 224, "torchvision vgg13_bn"),
    Row("vgg16",            138_357_544,         0, 15.470264, 224, "torchvision vgg16"),
    Row("vgg16_bn",         138_365_992,     8_448, 15.470264, 224, "torchvision vgg16_bn"),
    Row("vgg19",            143_667_240,         0, 19.632062, 224, "torchvision vgg19"),
    Row("vgg19_bn",         143_678_248,    11_008, 19.632062, 224, "torchvision vgg19_bn"),
    Row("vgg9_bn_cifar",      1_431_176,     1_920,  0.053045,  32, "paper"),
    Row("wide_resnet50_2",   68_883_240,    68_224, 11.398021, 224, "torchvision wide_resnet50_2"),
    Row("wide_resnet101_2", 126_886_696,   137_856, 22.753051, 224, "torchvision wide_resnet101_2"),
    Row("xception",          22_855_952,    54_528,  8.357403, 299, "timm legacy_xception"),
]

# fmt: on

# The same architecture elsewhere: tools/peers.py lists it. KerasHub's were not counted,
# and what has the same parameters with strides elsewhere computes otherwise.
LISTED = [p for p in peers.peers() if p.input_size and not p.elsewhere]
BY_NAME = {p.name: p for p in LISTED}
PEERS = {
    name: [p.name for p in LISTED if p.network == name]
    for name in dict.fromkeys(p.network for p in LISTED)
}


def count(name: str, classes: int, size: int, peer: str) -> zoo.Count:
    numerics = BY_NAME[peer].numerics if peer in BY_NAME else registry.find(name).numerics
    return counted(Spec(name, classes, numerics=numerics, aux=True), size)


@functools.cache
def counted(spec: Spec, size: int) -> zoo.Count:
    """Without the memory of training, four fifths of the time: peers do not count it.

    `test_catalogue.test_parameters_are_the_network_s` has it counted for each family.
    """
    with mock.patch.object(memory, "kept", return_value=0):
        return zoo.count(registry.abstract(spec), input_size=size)


def test_every_network_has_one_row():
    assert sorted(row.name for row in TABLE) == sorted(MODELS)
    assert {row.name for row in TABLE if row.source != "paper"} == set(PEERS)


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.name)
def test_counts_are_those_of_the_table(row):
    assert registry.find(row.name).input_size == row.input_size
    c = count(row.name, row.classes, row.input_size, row.source)
    assert (c.params, c.batch_stats) == (row.params, row.batch_stats)
    # A thousandth is promised; the peers' own rounding is what is reached.
    assert c.macs / 1e9 == pytest.approx(row.gmacs, abs=1e-6)


@pytest.fixture(scope="module")
def collected(shared) -> dict[str, dict[str, str]]:
    """What was counted of peers by "peer model"."""
    lines = tools.peers.counted(shared("reference"))
    return {f"{peer} {model}": line for (peer, model), line in lines.items()}


def without_aux(theirs: dict[str, str]) -> tuple[int, int]:
    """A peer's parameters and BN statistics but those of its auxiliary classifiers."""
    return (
        int(theirs["params_trainable"]) - int(theirs["aux_params"] or 0),
        int(theirs["bn_buffers"]) - int(theirs["aux_bn_buffers"] or 0),
    )


def test_the_table_is_its_source(collected):
    for row in TABLE:
        if row.source != "paper":
            assert row.source in PEERS[row.name]
            theirs = collected[row.source]
            assert (row.params, row.batch_stats) == without_aux(theirs), row.name
            assert row.gmacs == float(theirs["gmacs"]), row.name
            assert row.input_size == int(theirs["input_size"]), row.name


@pytest.mark.parametrize(
    ("name", "peer"), [(name, peer) for name, found in PEERS.items() for peer in found]
)
def test_every_peer_counts_the_same(name, peer, collected):
    theirs = collected[peer]
    classes = 1001 if theirs["note"].startswith("1001 classes") else 1000
    size = int(theirs["input_size"])
    c = count(name, classes, size, peer)
    assert (c.params, c.batch_stats) == without_aux(theirs)
    assert int(theirs["aux_params"] or 0) in (0, c.aux)
    # slim counts the products of auxiliary classifiers too, as training has them
    listed = BY_NAME[peer]
    macs = peers.macs(listed.spec, size, with_aux=True) if listed.aux_in_gmacs else c.macs
    assert macs / 1e9 == pytest.approx(float(theirs["gmacs"]), abs=1e-6)


def test_no_peer_is_forgotten(collected):
    listed = {peer for found in PEERS.values() for peer in found}
    same_name = {f"{peer} {name}" for peer in ("torchvision", "timm") for name in MODELS}
    assert same_name & set(collected) <= listed


# --- names ---------------------------------------------------------------------------------------


def test_aliases_resolve():
    aliases = {a: v.name for v in registry.variants().values() for a in v.aliases}
    assert aliases["mobilenet_v1"] == "mobilenet_v1_100"
    for alias, name in aliases.items():
        assert registry.find(alias).name == name
    assert zoo.count("mobilenet_v1") == zoo.count("mobilenet_v1_100")


@pytest.mark.parametrize("taken", ["resnet18", "mobilenet_v1"])
@pytest.mark.parametrize("as_alias", [False, True])
def test_a_name_is_given_once(taken, as_alias):
    newcomer = replace(registry.variants()["vgg11"], name="new", aliases=())
    newcomer = replace(newcomer, **({"aliases": (taken,)} if as_alias else {"name": taken}))
    found = dict(registry.variants())
    with pytest.raises(zoo.ZooError, match=f"'{taken}' is taken by '{registry.find(taken).name}'"):
        registry.add(found, newcomer)
    assert found == registry.variants()


@pytest.mark.parametrize("ask", [zoo.create, zoo.count, zoo.load, registry.find])
def test_an_unknown_name_offers_the_nearest(ask):
    with pytest.raises(zoo.ZooError, match=r"^unknown model 'resnet5': did you mean .*'resnet50'"):
        ask("resnet5")


def test_list_models_takes_patterns():
    assert zoo.list_models("vgg1?") == ["vgg11", "vgg13", "vgg16", "vgg19"]
    assert zoo.list_models("nothing*") == []
    assert all(v.paper.url.startswith("https://") for v in registry.variants().values())


# --- every network, abstractly -------------------------------------------------------------------


@functools.cache
def abstract(name: str, num_classes: int = 7, **switches) -> Network:
    return registry.abstract(Spec(name, num_classes, **switches))


def output(model: Network, size: int, method=Network.__call__):
    """What a call returns for two images, shapes only."""
    graphdef, state = nnx.split(model)
    images = jax.ShapeDtypeStruct((2, size, size, 3), jnp.float32)
    return jax.eval_shape(lambda s, x: method(nnx.merge(graphdef, s), x), state, images)


def leaves(model: Network, kind=...) -> dict[str, jax.Array]:
    return flat(nnx.state(model, kind))


@every_model
def test_builds_without_allocating(name):
    shapes = leaves(abstract(name))
    assert shapes
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in shapes.values())


@every_model
def test_smallest_input_and_output_shapes(name):
    model, headless = abstract(name), abstract(name, num_classes=0)
    assert output(model, model.min_size).shape == (2, 7)
    pooled = model.classifier.linear.kernel.shape[0]
    assert output(headless, model.min_size).shape == (2, pooled)
    assert headless.classifier is None


@every_model
def test_wrong_input_is_told(name):
    model = abstract(name)
    side = model.min_size
    for got, image in {
        f"uint8 [1, {side}, {side}, 3]": np.zeros((1, side, side, 3), np.uint8),
        f"float32 [{side}, {side}, 3]": np.zeros((side, side, 3), np.float32),
        f"float32 [1, {side}, {side}, 1]": np.zeros((1, side, side, 1), np.float32),
        f"float32 [1, 3, {side}, {side}]": np.zeros((1, 3, side, side), np.float32),
        f"{side - 1}x{side}": np.zeros((1, side - 1, side, 3), np.float32),
        f"{side}x{side - 1}": np.zeros((1, side, side - 1, 3), np.float32),
    }.items():
        for call in (model, functools.partial(zoo.features, model)):
            with pytest.raises(zoo.ZooError) as error:
                call(image)
            line = str(error.value)
            assert line.startswith(f"{name}: got ")
            assert got in line
            assert f"expected preprocessed float images [N, H, W, 3], H and W >= {side}" in line
            assert "\n" not in line


@every_model
def test_split_and_merge_keep_all(name):
    model = abstract(name)
    model.classes = ("a", "b")
    graphdef, state = nnx.split(model)
    twin = nnx.merge(graphdef, state)
    assert nnx.split(twin)[0] == graphdef
    assert leaves(twin) == leaves(model)
    assert layers.model_stages(twin) == layers.model_stages(model)
    kept = ("spec", "min_size", "preprocess", "classes")
    assert [getattr(twin, k) for k in kept] == [getattr(model, k) for k in kept]
    model.classes = ()


@every_model
def test_equal_specs_make_equal_graphs(name):
    """Else a second model of the same kind would be compiled again."""
    one, other = nnx.graphdef(abstract(name)), nnx.graphdef(registry.abstract(Spec(name, 7)))
    assert one == other
    assert hash(one) == hash(other)
    assert one != nnx.graphdef(abstract(name, num_classes=0))


@every_model
def test_bfloat16_is_only_for_the_computation(name):
    model = abstract(name, dtype="bfloat16")
    state = leaves(model, nnx.Any(nnx.Param, nnx.BatchStat))
    assert {leaf.dtype for leaf in state.values()} == {jnp.dtype("float32")}

    *stages, logits = output(
        model, model.min_size, lambda m, x: [*(y for _, y in m.steps(x)), m.forward(x)]
    )
    assert {y.dtype for y in stages} == {jnp.dtype("bfloat16")}
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize("name", FIRST)
def test_switches_reach_every_layer(name):
    plain = abstract(name)
    norm = "none" if leaves(plain, nnx.BatchStat) else "batch"
    bare = abstract(name, norm=norm, act="tanh", remat=True, dropout=0.3)
    assert not leaves(bare, nnx.BatchStat)
    assert output(bare, bare.min_size).shape == output(plain, plain.min_size).shape
    rates = {m.rate for _, m in nnx.iter_modules(bare) if isinstance(m, nnx.Dropout)}
    assert rates <= {0.3}


@pytest.mark.parametrize("name", FIRST)
def test_stages_come_by_name_in_order(name):
    model = abstract(name)
    shapes = output(model, model.min_size, lambda m, x: dict(m.steps(x)))
    assert set(shapes) == set(layers.model_stages(model))
    assert list(layers.model_stages(model))[-1] == "classifier"
    assert len(shapes) == len(layers.model_stages(model))  # no name twice


# --- one small member of each family, concretely -------------------------------------------------

SIDE, BATCH, CLASSES = 32, 4, 5


def until(last: str, table: dict) -> dict:
    """The rows of a table up to the one named `last`."""
    names = list(table)
    return {name: table[name] for name in names[: names.index(last) + 1]}


def shallow(unit, stem=resnet.STEM) -> dict:
    """A ResNet of three narrow units."""
    stages = dict(stage1=resnet.stage(unit, 16, 2), stage2=resnet.stage(unit, 32, 1, stride=2))
    return dict(stem=stem, pool=MaxPool(3, 2), **stages)


@pytest.fixture(scope="session")
def builders(network):
    """family -> a builder of its small member. VGG's has a narrow head: fc1 alone is 411 MB."""
    narrow = dict(flatten=FlattenAt(1), fc1=Dense(32), drop1=Dropout(0.5))
    create = functools.partial(zoo.create, num_classes=CLASSES, dropout=0.5)
    return dict(
        # 32x32 images end at conv5; padded, as in "alexnet", they last that long
        alexnet=lambda: network(
            {"pad": alexnet.Pad(2), **until("conv5", alexnet.FIGURE_2)}, narrow, num_classes=CLASSES
        ),
        # their early rows
        inception_v1=lambda: network(
            until("mixed4a", inception_v1.BN_TABLE), inception_v1.BN_HEAD, num_classes=CLASSES
        ),
        inception_v2=lambda: network(
            until("mixed4a", inception_v2.FIGURE_5), inception_v2.HEAD, num_classes=CLASSES
        ),
        # their modules, narrow
        inception_resnet_v2=lambda: network(
            dict(
                stem=Conv(3, 8, stride=2),
                resnet_a=inception_resnet_v2.Block(
                    inception_resnet_v2.branches_a(8, 8, 8), scale=0.17
                ),
                reduction_a=inception_v3.reduction_a(8, 8, 8, 8),
                resnet_b=inception_resnet_v2.Block(
                    inception_resnet_v2.branches_bc(7, 8, 8, 8, 8), scale=0.1
                ),
                reduction_b=inception_resnet_v2.reduction_b(8, 8, 8, 8),
                resnet_c=inception_resnet_v2.Block(
                    inception_resnet_v2.branches_bc(3, 8, 8, 8, 8), scale=1.0, act=None
                ),
            ),
            inception_resnet_v2.HEAD,
            num_classes=CLASSES,
        ),
        inception_v3=lambda: network(
            dict(
                stem=Conv(3, 8, stride=2),
                mixed5b=inception_v3.figure_5(8, 8, 8, 8, 8, 8),
                mixed6a=inception_v3.reduction_a(8, 8, 8, 8),
                mixed6b=inception_v3.figure_6(8, 8),
                mixed7a=inception_v3.reduction_b(8, 8),
                mixed7b=inception_v3.figure_7(8, 8, 8, 8),
            ),
            inception_v3.HEAD,
            num_classes=CLASSES,
        ),
        inception_v4=lambda: network(
            dict(
                stem=Conv(3, 8, stride=2),
                inception_a=inception_v4.inception_a(8, 8, 8, 8),
                reduction_a=inception_v3.reduction_a(8, 8, 8, 8),
                inception_b=inception_v4.inception_b(8, 8, 8, 8, 8),
                reduction_b=inception_v4.reduction_b(8, 8, 8),
                inception_c=inception_v4.inception_c(8, 8, 8, 8),
            ),
            inception_v4.HEAD,
            num_classes=CLASSES,
        ),
        convnext=lambda: network(
            convnext.body((8, 16, 24, 32), (1, 1, 1, 1), convnext.Block()),
            convnext.HEAD,
            num_classes=CLASSES,
        ),
        convnext_v2=lambda: network(
            convnext.body((8, 16, 24, 32), (1, 1, 1, 1), convnext_v2.Block()),
            convnext.HEAD,
            num_classes=CLASSES,
        ),
        densenet=lambda: network(
            densenet.table_1((2, 2, 2, 2), k=8), densenet.HEAD, num_classes=CLASSES
        ),
        efficientnet=lambda: network(
            efficientnet.table_1(width=0.25, depth=0.5), HEAD, num_classes=CLASSES
        ),
        efficientnet_lite=lambda: network(
            efficientnet_lite.table_1(width=0.25, depth=0.5), HEAD, num_classes=CLASSES
        ),
        efficientnet_v2=lambda: network(
            efficientnet_v2.base(width=0.25, depth=0.5), HEAD, num_classes=CLASSES
        ),
        airbench=functools.partial(create, "airbench94_cifar"),
        inception_cifar=functools.partial(create, "inception_cifar"),
        mnasnet=functools.partial(create, "semnasnet_050"),
        mobilenet_v1=functools.partial(create, "mobilenet_v1_025"),
        mobilenet_v2=functools.partial(create, "mobilenet_v2_035"),
        mobilenet_v3=functools.partial(create, "mobilenet_v3_small_075"),
        mobilenet_v4=lambda: network(
            dict(
                stem=Conv(3, 8, stride=2),
                stage1=mobilenet_v4.stage(mobilenet_v4.FusedIB(16, 16)),
                stage2=mobilenet_v4.stage(
                    mobilenet_v4.UIB(5, 3, 32, 16, 2),
                    mobilenet_v4.UIB(0, 3, 32, 16),
                    mobilenet_v4.UIB(3, 0, 32, 16),
                    mobilenet_v4.UIB(0, 0, 32, 16),
                ),
            ),
            mobilenet_v4.HEAD,
            num_classes=CLASSES,
        ),
        nasnet=lambda: network(
            {
                **nasnet.stacked(nasnet.nasnet_a(1, 8), stem=8, skips=True),
                "pnas": nasnet.CellAt(nasnet.PNAS, 4, 1, ("normal2_1",), 96, nasnet.halved(4)),
                "relu": xception.ReLU(),
            },
            nasnet.HEAD,
            num_classes=CLASSES,
        ),
        nin=functools.partial(create, "nin_cifar"),
        regnet=lambda: network(
            dict(
                stem=Conv(3, 32, stride=2),
                stage1=regnet.stage(regnet.YBlock, 48, 2, group=8),
                stage2=regnet.stage(regnet.XBlock, 64, 1, group=16),
            ),
            regnet.HEAD,
            num_classes=CLASSES,
        ),
        resnet=functools.partial(create, "resnet18"),
        resnet_cifar=functools.partial(create, "resnet20_cifar"),
        resnet_d=lambda: network(
            shallow(resnet_d.BOTTLENECK, resnet_d.STEM), resnet.HEAD, num_classes=CLASSES
        ),
        resnet_preact=lambda: network(
            {**shallow(resnet_preact.BOTTLENECK_D, resnet_preact.DEEP), "postact": PreAct()},
            resnet.HEAD,
            num_classes=CLASSES,
        ),
        resnet_v2=lambda: network(
            dict(
                stem=resnet.STEM,
                stage1=resnet_v2.stage(16, 2, stride=2),
                stage2=resnet_v2.stage(32, 2),
                postact=PreAct(),
            ),
            resnet.HEAD,
            num_classes=CLASSES,
        ),
        resnext=lambda: network(
            shallow(functools.partial(resnext.Aggregated, groups=4, d=16)),
            resnet.HEAD,
            num_classes=CLASSES,
        ),
        seresnet=lambda: network(shallow(seresnet.SEBottleneck), resnet.HEAD, num_classes=CLASSES),
        shufflenet_v2=lambda: network(
            shufflenet_v2.table_5(16, 32, 64, 128), shufflenet_v2.HEAD, num_classes=CLASSES
        ),
        squeezenet=functools.partial(create, "squeezenet1_1"),
        vgg=lambda: network(
            vgg.table_1(vgg.DEPTHS["vgg11"], norm=True), narrow, num_classes=CLASSES
        ),
        wide_resnet=lambda: network(shallow(wide_resnet.wide), resnet.HEAD, num_classes=CLASSES),
        xception=lambda: network(
            dict(
                conv1=Conv(3, 8, stride=2, padding="valid"),
                entry1=xception.Down(8, 8, relu=False),
                middle=xception.Middle(),
                exit=xception.Down(8, 16),
                conv3=xception.SeparableConv(32, act="relu"),
            ),
            xception.HEAD,
            num_classes=CLASSES,
        ),
    )


FAMILIES = sorted({variant.family for variant in registry.variants().values()})


@pytest.fixture(scope="session", params=FAMILIES)
def small(request, builders) -> Network:
    """In inference mode; whoever changes it works on a copy."""
    return builders[request.param]()


@pytest.fixture(scope="session")
def images() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (BATCH, SIDE, SIDE, 3))


class Step(NamedTuple):
    logits: jax.Array
    grads: dict[str, jax.Array]
    before: dict[str, jax.Array]  # BN statistics
    after: dict[str, jax.Array]


@pytest.fixture(scope="session")
def train(small, images):
    """Forward and backward in training mode, given a dropout key."""
    program, params, stats = take_apart(small)
    weights = jax.random.normal(jax.random.key(1), (BATCH, CLASSES))

    def loss(params, key):
        model = program.network(params, stats, dropout=key)
        with ops.native_only():  # which compile in a fraction of the time; test_ops has ours
            logits = model(images)
        return (logits * weights).sum(), (logits, program.stats(model))

    run = jax.jit(jax.value_and_grad(loss, has_aux=True))

    @functools.cache
    def step(seed: int) -> Step:
        (_, (logits, after)), grads = run(params, jax.random.key(seed))
        return Step(logits, grads, stats, after)

    return step


def test_every_parameter_learns(train):
    grads = train(0).grads
    for path, grad in grads.items():
        assert np.isfinite(grad).all(), path
        # Batch norm subtracts whatever a bias before it adds: no gradient but rounding.
        if not (path.endswith("conv.bias") and path.replace("conv.bias", "norm.bias") in grads):
            assert np.any(grad), path


def test_batch_norm_follows_the_batch_in_training_only(small, images, train):
    step = train(0)
    assert step.before.keys() == step.after.keys()
    for path, old in step.before.items():
        assert not np.array_equal(old, step.after[path]), path

    small(images)
    assert all(np.array_equal(x, step.before[p]) for p, x in leaves(small, nnx.BatchStat).items())


def test_dropout_acts_in_training_only(small, images, train):
    drops = any(isinstance(layer, nnx.Dropout) for _, layer in small.head.layers())
    assert np.array_equal(train(0).logits, train(0).logits)
    assert np.array_equal(train(0).logits, train(1).logits) != drops
    assert np.array_equal(small(images), small(images))


def test_features_are_the_stages_in_order(small, images):
    found = zoo.features(small, images)
    parts = [*small.body.layers(), *small.head.layers()]
    assert list(found) == [*(name for name, _ in parts), "classifier"]
    logits = small(images)
    assert logits.shape == (BATCH, CLASSES)
    np.testing.assert_allclose(found["classifier"], logits, rtol=1e-5, atol=1e-5)

    # The first of the head is that layer's answer to the last of the body.
    name, pool = next(iter(small.head.layers()))
    last = found[small.body.order[-1]]
    np.testing.assert_allclose(pool(last), found[name], rtol=1e-5, atol=1e-6)
    sides = [y.shape[1] for y in found.values() if y.ndim == 4]
    assert sides == sorted(sides, reverse=True)


def test_a_second_model_compiles_nothing(builders, images):
    one, two = (builders["mobilenet_v1"](seed=seed) for seed in range(2))
    first = one(images)
    compiled = calling.compiled.cache_info().currsize
    second = two(images)
    one(images)
    assert calling.compiled.cache_info().currsize == compiled
    assert not np.array_equal(first, second)


# --- modes and switches, on a network of three layers --------------------------------------------

BODY = dict(stem=Conv(3, 8, stride=2, act="relu6"), sep=Separable(16, stride=2))
HEAD = dict(pool=GlobalAvgPool(), drop=Dropout(0.5))


@pytest.fixture
def tiny(network):
    return functools.partial(network, BODY, HEAD, num_classes=3)


@pytest.fixture(scope="session")
def patch() -> jax.Array:
    return jax.random.normal(jax.random.key(0), (2, 8, 8, 3))


@dataclass(frozen=True)
class Plus:
    """Its input and the output of an earlier row, added."""

    sees: tuple[str, ...]

    def build(self, channels, _ctx):
        return self, channels

    def __call__(self, x, seen):
        return x + seen


def test_a_layer_may_see_earlier_rows(network, patch):
    body = dict(one=Conv(3, 4), two=Conv(3, 4, stride=1), both=Plus(("one",)))
    for remat in False, True:
        found = zoo.features(network(body, HEAD, num_classes=3, remat=remat), patch)
        np.testing.assert_allclose(found["both"], found["one"] + found["two"], rtol=1e-6)


def test_train_and_eval_set_the_mode(tiny, patch):
    model = tiny()
    before, still = leaves(model, nnx.BatchStat), model(patch)

    model.train()
    first, second = model(patch), model(patch)
    assert not np.array_equal(first, second)  # another mask
    after = leaves(model, nnx.BatchStat)
    assert all(not np.array_equal(before[path], after[path]) for path in before)

    model.eval()
    assert np.array_equal(model(patch), model(patch))
    assert not np.array_equal(model(patch), still)  # the statistics stay as training left them


@pytest.mark.parametrize(("act", "low", "high"), [("tanh", -1, 1), ("sigmoid", 0, 1)])
def test_act_replaces_every_activation(tiny, patch, act, low, high):
    papers, ours = zoo.features(tiny(), patch), zoo.features(tiny(act=act), patch)
    for stage in BODY:
        assert papers[stage].min() == 0  # ReLU6
        assert low < ours[stage].min()
        assert ours[stage].max() < high
    assert ours["stem"].min() < (low + high) / 2 < ours["stem"].max()


@pytest.mark.parametrize("name", ["mobilenet_v1_025", "resnet18", "vgg11_bn"])
def test_norm_none_puts_biases_instead(name):
    normal, bare = leaves(abstract(name)), leaves(abstract(name, norm="none"))
    assert any(".norm." in path for path in normal)
    assert not any(".norm." in path for path in bare)
    kernels = {p.removesuffix("kernel") for p in bare if p.endswith("conv.kernel")}
    biases = {p.removesuffix("bias") for p in bare if p.endswith("conv.bias")}
    assert kernels == biases
    assert not leaves(abstract(name, norm="none"), nnx.BatchStat)


@pytest.mark.parametrize(("asked", "rate"), [(None, 0.5), (0.0, 0.0), (0.9, 0.9)])
def test_dropout_replaces_the_rate(tiny, patch, asked, rate):
    model = tiny(dropout=asked, num_classes=0)
    assert model.head.drop.rate == rate
    model.set_attributes(nnx.Dropout, deterministic=False)
    kept = np.asarray(zoo.features(model, patch)["drop"] != 0)
    alive = np.asarray(zoo.features(model, patch)["pool"] != 0)
    assert kept.sum() / alive.sum() == pytest.approx(1 - rate, abs=0.25)


@pytest.mark.parametrize(
    ("switch", "message"),
    [
        (dict(act="tahn"), "unknown activation 'tahn': did you mean 'tanh'"),
        (dict(init="he_norm"), "unknown initialiser 'he_norm': did you mean 'he_normal'"),
        (dict(norm="bach"), "unknown normaliser 'bach': did you mean 'batch'"),
        (dict(dtype="float64"), "unknown dtype 'float64': did you mean"),
        (dict(param_dtype="int8"), "unknown param_dtype 'int8': expected one of"),
        (dict(numerics=zoo.Numerics(padding="sam")), "unknown padding 'sam': did you mean 'same'"),
        (dict(num_classes=-1), "num_classes: got -1, expected 0 to 10,000,000"),
        (dict(dropout=1.0), "dropout: got 1.0, expected 0 <= rate < 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_switch_that_does_not_exist(switch, message):
    with pytest.raises(zoo.ZooError, match=f"^{message}"):
        zoo.create("mobilenet_v1_025", **switch)


def test_create_passes_every_switch_on():
    """Each argument of `zoo.create` but the seed is a field of the spec, at another value."""
    switches = dict(
        num_classes=3,
        dtype="bfloat16",
        param_dtype="bfloat16",
        numerics=zoo.KERAS,
        init="normal",
        norm="none",
        act="tanh",
        without="avgpool",
        dropout=0.2,
        drop_path=0.1,
        aux=True,
        remat=True,
        in_chans=1,
    )
    assert set(inspect.signature(zoo.create).parameters) == {"name", "seed", *switches}
    spec = zoo.create("resnet18", **switches).spec
    assert spec == Spec("resnet18", **switches)
    assert all(getattr(Spec("resnet18"), k) != v for k, v in switches.items())
    assert Spec.from_dict(spec.to_dict()) == spec


# --- fresh values --------------------------------------------------------------------------------

CONV, DEPTHWISE, DENSE = (3, 3, 64, 128), (3, 3, 1, 4096), (300, 200)


@pytest.mark.parametrize(
    ("init", "shape", "std", "cut"),  # cut: no value is further out, in deviations before cutting
    [
        ("he_normal", CONV, (2 / (9 * 64)) ** 0.5, 2 / 0.87963),
        ("he_normal", DEPTHWISE, (2 / 9) ** 0.5, 2 / 0.87963),
        ("he_normal", DENSE, (2 / 300) ** 0.5, 2 / 0.87963),
        ("lecun_normal", CONV, (1 / (9 * 64)) ** 0.5, 2 / 0.87963),
        ("glorot_uniform", CONV, (2 / (9 * 64 + 9 * 128)) ** 0.5, 3**0.5),
        ("glorot_uniform", DENSE, (2 / 500) ** 0.5, 3**0.5),
        ("truncated_normal", CONV, 0.01 * 0.87963, 2 / 0.87963),
        ("normal", CONV, 0.01, None),
    ],
)
def test_initialisers(init, shape, std, cut):
    x = initializer(init)(np.random.default_rng(0), shape)
    assert x.shape == shape
    assert x.dtype == np.float32
    assert x.std() == pytest.approx(std, rel=0.02)
    assert abs(x.mean()) < 0.02 * std
    widest = np.abs(x).max() / std
    assert widest > 4 if cut is None else 0.99 * cut < widest <= cut * (1 + 1e-4)


def test_dirac_copies_the_inputs_to_the_first_outputs():
    kernel = initializer("dirac")(np.random.default_rng(0), (3, 3, 6, 16))
    x = jax.random.normal(jax.random.key(0), (2, 5, 5, 6))
    out = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    np.testing.assert_allclose(out[..., :6], x, atol=1e-6)
    assert np.abs(kernel[..., 6:]).max(axis=(0, 1, 2)).min() > 0
    narrowing = initializer("dirac")(np.random.default_rng(0), (1, 1, 6, 4))
    np.testing.assert_array_equal(narrowing[0, 0], np.eye(6, 4))


def test_every_initialiser_builds_a_network(tiny):
    names = (*INITIALIZERS, *WITH_DEVIATION, "normal(0.1)")
    stds = {init: leaves(tiny(init=init))["body.stem.conv.kernel"].std() for init in names}
    assert stds.pop("zeros") == 0
    assert all(0 < std < 1 for std in stds.values())
    assert len({float(std) for std in stds.values()}) == len(stds)


@pytest.fixture(scope="module")
def fresh():
    @functools.cache
    def values(**asked):
        return leaves(zoo.create("mobilenet_v1_025", **asked), nnx.Any(nnx.Param, nnx.BatchStat))

    return values


def test_constants_start_neutral(fresh):
    start = {"bias": 0, "mean": 0, "scale": 1, "var": 1}
    for path, x in fresh(seed=0).items():
        leaf = path.rpartition(".")[2]
        assert leaf == "kernel" or np.all(x == start[leaf]), path


def test_the_seed_decides_all_values(fresh):
    one, other = fresh(seed=0), fresh(seed=1)
    again = leaves(zoo.create("mobilenet_v1_025", seed=0), nnx.Any(nnx.Param, nnx.BatchStat))
    assert one.keys() == other.keys() == again.keys()
    for path, x in one.items():
        assert np.array_equal(x, again[path]), path
        assert np.array_equal(x, other[path]) != path.endswith("kernel"), path


def test_no_two_kernels_are_alike(fresh):
    kernels = [np.asarray(x) for path, x in fresh(seed=0).items() if path.endswith("kernel")]
    starts = {tuple(np.sign(x.ravel()[:64])) for x in kernels}
    assert len(starts) == len(kernels)


def test_a_new_head_leaves_the_body_alone(fresh):
    one, other = fresh(seed=0), fresh(seed=0, num_classes=7)
    assert one.keys() == other.keys()
    for path, x in one.items():
        if path.startswith("classifier."):
            assert x.shape != other[path].shape
        else:
            assert np.array_equal(x, other[path]), path
