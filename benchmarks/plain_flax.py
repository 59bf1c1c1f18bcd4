"""The networks as one writes them in plain Flax NNX: what ours are compared with.

`NETWORKS[name](rngs=...)` maps images [N, H, W, 3] to logits [N, 1000]. Their parameters are as
many as ours; Inception v3 gives (logits, auxiliary logits) while training.
"""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
from flax import nnx

relu6 = jax.nn.relu6


class ConvBN(nnx.Module):
    def __init__(self, cin, cout, kernel, stride=1, *, groups=1, pad=None, act=nnx.relu, rngs):
        kernel = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = [(k // 2, k // 2) for k in kernel] if pad is None else pad
        self.conv = nnx.Conv(
            *(cin, cout, kernel),
            strides=stride,
            padding=padding,
            feature_group_count=groups,
            use_bias=False,
            rngs=rngs,
        )
        self.bn = nnx.BatchNorm(cout, momentum=0.9, rngs=rngs)
        self.act = act

    def __call__(self, x):
        return self.act(self.bn(self.conv(x)))


def identity(x):
    return x


def pool3(x):
    return nnx.max_pool(x, (3, 3), strides=(2, 2), padding=[(1, 1), (1, 1)])


def pool3_valid(x):
    return nnx.max_pool(x, (3, 3), strides=(2, 2), padding="VALID")


def pool2(x):
    return nnx.max_pool(x, (2, 2), strides=(2, 2))


def smooth(x):
    return nnx.avg_pool(x, (3, 3), strides=(1, 1), padding="SAME")


def mean(x):
    return x.mean((1, 2))


class Residual(nnx.Module):
    def __init__(self, branch, shortcut=identity, act=identity):
        self.branch, self.shortcut, self.act = branch, shortcut, act

    def __call__(self, x):
        return self.act(self.branch(x) + self.shortcut(x))


class Branches(nnx.Module):
    def __init__(self, *branches):
        self.branches = nnx.List(branches)

    def __call__(self, x):
        return jnp.concatenate([branch(x) for branch in self.branches], -1)


def mobilenet_v1(rngs):
    widths = [32, 64, *[128] * 2, *[256] * 2, *[512] * 6, *[1024] * 2]
    conv = partial(ConvBN, act=relu6, rngs=rngs)
    layers = [conv(3, 32, 3, 2)]
    for i, (a, b) in enumerate(pairwise(widths)):
        layers += [conv(a, a, 3, 2 if i in (1, 3, 5, 11) else 1, groups=a), conv(a, b, 1)]
    return nnx.Sequential(*layers, mean, nnx.Linear(1024, 1000, rngs=rngs))


def mobilenet_v2(rngs):
    conv = partial(ConvBN, act=relu6, rngs=rngs)
    layers, cin = [conv(3, 32, 3, 2)], 32
    for t, c, n, s in (
        *((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2)),
        *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
    ):
        for i in range(n):
            wide, stride = t * cin, s if i == 0 else 1
            block = nnx.Sequential(
                *([conv(cin, wide, 1)] if t > 1 else []),
                conv(wide, wide, 3, stride, groups=wide),
                conv(wide, c, 1, act=identity),
            )
            layers.append(Residual(block) if i else block)
            cin = c
    layers += [conv(320, 1280, 1), mean, nnx.Dropout(0.2, rngs=rngs)]
    return nnx.Sequential(*layers, nnx.Linear(1280, 1000, rngs=rngs))


def resnet(depths, expansion, rngs):
    conv = partial(ConvBN, rngs=rngs)
    layers, cin = [conv(3, 64, 7, 2), pool3], 64
    for stage, depth in enumerate(depths):
        width = 64 * 2**stage
        cout = width * expansion
        for i in range(depth):
            stride = 2 if stage and i == 0 else 1
            if expansion == 1:
                branch = [conv(cin, width, 3, stride), conv(width, cout, 3, act=identity)]
            else:
                branch = [conv(cin, width, 1), conv(width, width, 3, stride)]
                branch += [conv(width, cout, 1, act=identity)]
            same = stride == 1 and cin == cout
            shortcut = identity if same else conv(cin, cout, 1, stride, act=identity)
            layers.append(Residual(nnx.Sequential(*branch), shortcut, nnx.relu))
            cin = cout
    return nnx.Sequential(*layers, mean, nnx.Linear(cin, 1000, rngs=rngs))


def vgg16(rngs):
    layers, cin = [], 3
    for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(depth):
            layers += [nnx.Conv(cin, width, (3, 3), rngs=rngs), nnx.relu]
            cin = width
        layers.append(pool2)
    layers.append(lambda x: x.reshape(len(x), -1))
    for a, b in ((7 * 7 * 512, 4096), (4096, 4096)):
        layers += [nnx.Linear(a, b, rngs=rngs), nnx.relu, nnx.Dropout(0.5, rngs=rngs)]
    return nnx.Sequential(*layers, nnx.Linear(4096, 1000, rngs=rngs))


class InceptionV3(nnx.Module):
    def __init__(self, rngs):
        conv = partial(ConvBN, rngs=rngs)
        seq = nnx.Sequential

        def a(cin, pool):
            return Branches(
                conv(cin, 64, 1),
                seq(conv(cin, 48, 1), conv(48, 64, 5)),
                seq(conv(cin, 64, 1), conv(64, 96, 3), conv(96, 96, 3)),
                seq(smooth, conv(cin, pool, 1)),
            )

        def c(m):
            row, column = (1, 7), (7, 1)
            double = conv(768, m, 1), conv(m, m, column), conv(m, m, row), conv(m, m, column)
            return Branches(
                conv(768, 192, 1),
                seq(conv(768, m, 1), conv(m, m, row), conv(m, 192, column)),
                seq(*double, conv(m, 192, row)),
                seq(smooth, conv(768, 192, 1)),
            )

        def e(cin):
            def split(cin):
                return Branches(conv(cin, 384, (1, 3)), conv(cin, 384, (3, 1)))

            return Branches(
                conv(cin, 320, 1),
                seq(conv(cin, 384, 1), split(384)),
                seq(conv(cin, 448, 1), conv(448, 384, 3), split(384)),
                seq(smooth, conv(cin, 192, 1)),
            )

        valid = partial(conv, pad="VALID")
        b = Branches(
            valid(288, 384, 3, 2),
            seq(conv(288, 64, 1), conv(64, 96, 3), valid(96, 96, 3, 2)),
            pool3_valid,
        )
        seven = conv(768, 192, 1), conv(192, 192, (1, 7)), conv(192, 192, (7, 1))
        d = Branches(
            seq(conv(768, 192, 1), valid(192, 320, 3, 2)),
            seq(*seven, valid(192, 192, 3, 2)),
            pool3_valid,
        )
        stem = valid(3, 32, 3, 2), valid(32, 32, 3), conv(32, 64, 3), pool3_valid
        stem += valid(64, 80, 1), valid(80, 192, 3), pool3_valid
        self.low = seq(*stem, a(192, 32), a(256, 64), a(288, 64), b, c(128), c(160), c(160), c(192))
        self.high = seq(d, e(1280), e(2048), mean, nnx.Dropout(0.5, rngs=rngs))
        self.head = nnx.Linear(2048, 1000, rngs=rngs)
        self.aux = seq(
            lambda x: nnx.avg_pool(x, (5, 5), strides=(3, 3)),
            *(valid(768, 128, 1), valid(128, 768, 5), mean),
            nnx.Linear(768, 1000, rngs=rngs),
        )
        self.deterministic = False  # set by eval() and train()

    def __call__(self, x):
        x = self.low(x)
        logits = self.head(self.high(x))
        return logits if self.deterministic else (logits, self.aux(x))


NETWORKS = {
    "mobilenet_v1_100": mobilenet_v1,
    "mobilenet_v2_100": mobilenet_v2,
    "resnet18": partial(resnet, (2, 2, 2, 2), 1),
    "resnet50": partial(resnet, (3, 4, 6, 3), 4),
    "vgg16": vgg16,
    "inception_v3": InceptionV3,
}
