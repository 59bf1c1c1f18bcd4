"""PyTorch with torchvision's networks, channels last: eager, or through torch.compile.

For inference torch.compile has the weights in its programs ("freezing").

On CPU, float32, unless a work says `device` "cuda" or `dtype` "bfloat16" (by autocast).
"""

import os
import sys
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

torch.set_num_threads(len(os.sched_getaffinity(0)))
torch.manual_seed(0)


def versions() -> dict[str, str]:
    return {"torch": torch.__version__}


def make(work: dict[str, Any]) -> Callable[[], Any]:
    device = work.get("device", "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("this torch sees no GPU")
    torch.backends.cudnn.benchmark = True
    if work["kind"] == "gemm":
        a = torch.randn(work["size"], work["size"])
        return lambda: a @ a
    model = network(work["network"]).to(device, memory_format=torch.channels_last)
    shape = (work["batch"], 3, work["side"], work["side"])
    x = torch.randn(shape, device=device).to(memory_format=torch.channels_last)
    half = torch.autocast(device, torch.bfloat16, enabled=work.get("dtype") == "bfloat16")
    call = {"infer": infer, "train": train}[work["kind"]]
    return call(model, x, work.get("compile", False), half)


def finish() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()


def infer(
    model: nn.Module, x: torch.Tensor, compiled: bool, half: torch.autocast
) -> Callable[[], Any]:
    model.eval()
    forward = model
    if compiled:
        from torch._inductor import config

        config.freezing = True  # weights compiled in: up to 1.5 times as fast
        forward = torch.compile(model)

    def call() -> None:
        with torch.inference_mode(), half:
            forward(x)

    return call


def train(
    model: nn.Module, x: torch.Tensor, compiled: bool, half: torch.autocast
) -> Callable[[], Any]:
    model.train()
    forward = torch.compile(model) if compiled else model
    optimizer = torch.optim.SGD(
        model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, fused=x.is_cuda or None
    )
    labels = torch.arange(len(x), device=x.device)

    def call() -> None:
        optimizer.zero_grad()
        with half:
            output = forward(x)
            logits, *aux = output if isinstance(output, tuple) else (output,)
            loss = F.cross_entropy(logits, labels)
            for inner in aux:
                loss = loss + 0.3 * F.cross_entropy(inner, labels)
        loss.backward()
        optimizer.step()

    return call


def network(name: str) -> nn.Module:
    if name == "mobilenet_v1_100":
        return mobilenet_v1()
    models = torchvision_models()
    if name == "inception_v3":
        return models.inception_v3(weights=None, init_weights=False)
    return getattr(models, name.removesuffix("_100"))(weights=None)


def torchvision_models() -> Any:
    try:
        import torchvision.models
    except RuntimeError:
        # A torchvision built for CUDA beside a torch for CPU lacks its operators; no network here
        # calls them, but the import wants them declared.
        for module in [m for m in sys.modules if m.startswith("torchvision")]:
            del sys.modules[module]
        global library  # an operator lives as long as its library
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        import torchvision.models
    return torchvision.models


def mobilenet_v1() -> nn.Module:
    """torchvision has none."""

    def conv(a: int, b: int, kernel: int, stride: int = 1, groups: int = 1) -> list[nn.Module]:
        layer = nn.Conv2d(a, b, kernel, stride, kernel // 2, groups=groups, bias=False)
        return [layer, nn.BatchNorm2d(b), nn.ReLU6(inplace=True)]

    widths = [32, 64, *[128] * 2, *[256] * 2, *[512] * 6, *[1024] * 2]
    layers = conv(3, 32, 3, 2)
    for i, (a, b) in enumerate(pairwise(widths)):
        layers += conv(a, a, 3, 2 if i in (1, 3, 5, 11) else 1, a) + conv(a, b, 1)
    pool = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000)]
    return nn.Sequential(*layers, *pool)
