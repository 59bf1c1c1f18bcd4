"""Our networks as ONNX files, by ONNX Runtime or OpenVINO, each with its default settings.

On processors with AMX, OpenVINO's default is bfloat16; `precision` "f32" asks for float32.
"""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import zoo

from .zoo import network


def versions() -> dict[str, str]:
    found = {}
    for name in ("onnxruntime", "openvino"):
        try:
            found[name] = __import__(name).__version__
        except ImportError:
            continue
    return found


def make(work: dict[str, Any]) -> Callable[[], Any]:
    if work["kind"] != "infer":
        raise NotImplementedError(f"{work['runtime']} does not train")
    x = np.random.default_rng(0).normal(size=(work["batch"], work["side"], work["side"], 3))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "network.onnx"
        zoo.export(network(work), file, "onnx")
        return RUNTIMES[work["runtime"]](file, x.astype(np.float32), work.get("precision"))


def onnxruntime(file: Path, x: np.ndarray, precision: str | None) -> Callable[[], Any]:
    import onnxruntime

    if precision:
        raise NotImplementedError("the file's own precision, float32, is used")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"images": x})


def openvino(file: Path, x: np.ndarray, precision: str | None) -> Callable[[], Any]:
    import openvino

    core = openvino.Core()
    model = core.read_model(file)
    model.reshape({"images": list(x.shape)})  # fixed: compiled for these pictures
    settings = {"INFERENCE_PRECISION_HINT": precision} if precision else {}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer({"images": x})


RUNTIMES = {"onnxruntime": onnxruntime, "openvino": openvino}
