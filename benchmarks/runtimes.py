"""The same inference with runtimes that read an ONNX file, which PyTorch has written (`benchmarks.theirs`)."""

import os
import sys
from collections.abc import Callable

import numpy as np

from benchmarks.contest import Contest
from benchmarks.inputs import random_images

Work = Callable[[], object]
# From images (batch, channel, height, width) to what the network gives.
Run = Callable[[np.ndarray], np.ndarray]

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def wait(_: object) -> None:
    """All is done when a call returns."""


def device() -> tuple[str, int | None]:
    """What works; the memory is the process's."""
    return "cpu", None


def inference(contest: Contest) -> Work:
    """Logits, or the masks of the U-Net, of a batch."""
    run = RUNTIMES[contest.peer](contest.exported)
    images = random_images(contest.batch, contest.size, 1 if contest.name.startswith("simplecnn") else 3)
    images = np.ascontiguousarray(np.moveaxis(images, -1, 1))
    return lambda: run(images)


simplecnn_inference = unet_inference = inference


def _onnx_runtime(path: str) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = CORES
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Or its threads would wait busily while others have their turn.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images})[0]


def _openvino(path: str) -> Run:
    # It would start a process that reports to its makers that it is used.
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    import openvino

    # All cores for one batch at a time; on some processors it would compute in bfloat16.
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": CORES}
    request = openvino.compile_model(path, "CPU", settings).create_infer_request()
    return lambda images: request.infer([images], share_inputs=True, share_outputs=True)[0]


RUNTIMES: dict[str, Callable[[str], Run]] = {"ONNX Runtime": _onnx_runtime, "OpenVINO": _openvino}
