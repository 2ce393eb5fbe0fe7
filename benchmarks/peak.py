"""The limit of the machine: a large matrix product and a 3x3 convolution, in each installed framework.

`tensorflow`, `jax` and `torch` build contestants; `measured` runs them. Other times are compared with the
best median.
"""

import argparse
import importlib.util
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import workers
from benchmarks.workers import Case, Subprocess

FRAMEWORKS = ("tensorflow", "jax", "torch")
# Sides of the matrices; images, side and channels of the convolution; calls in a row.
SIZES = {"cpu": (2048, (1, 128, 256), 1), "gpu": (8192, (32, 128, 256), 20), "quick": (64, (1, 8, 8), 1)}


class Peak:
    """Both kernels of one framework.

    Args:
        make: From the arrays (left, right, image, kernel) to {name of the kernel: a function that runs it a
            number of times}.
        size: A key of SIZES.
    """

    def __init__(self, make: Callable, size: str):
        side, (images, height, channels), self.calls = SIZES[size]
        rng = np.random.default_rng(0)
        shapes = ((side, side), (side, side), (images, height, height, channels), (3, 3, channels, channels))
        self.kernels = make(*(rng.standard_normal(shape, dtype=np.float32) for shape in shapes))
        self.work = {"matmul": 2e-9 * side**3, "conv3x3": 18e-9 * images * (height * channels) ** 2}

    def run(self) -> dict[str, float]:
        """Return the GFLOP/s of each kernel, including the wait for the result."""
        speeds = {}
        for name, call in self.kernels.items():
            started = time.perf_counter()
            call(self.calls)
            speeds[name] = self.calls * self.work[name] / (time.perf_counter() - started)
        return speeds

    def describe(self, result: dict[str, float]) -> dict[str, Any]:
        """The speeds."""
        return result

    def gflop(self) -> dict[str, float]:
        """Arithmetic of one call."""
        return self.work

    def device_peak(self) -> int | None:
        """Not counted."""
        return None


def tensorflow(case: Case) -> Peak:
    """TensorFlow's operators, each in a compiled function."""
    import tensorflow as tf

    def make(left, right, image, kernel):
        dtype = getattr(tf, case.precision)
        left, right, image, kernel = (tf.constant(x, dtype) for x in (left, right, image, kernel))
        product = tf.function(lambda: tf.linalg.matmul(left, right))
        convolution = tf.function(lambda: tf.nn.conv2d(image, kernel, 1, "SAME"))
        return {"matmul": _repeated(product, _fetch), "conv3x3": _repeated(convolution, _fetch)}

    return Peak(make, _size(case, bool(tf.config.list_physical_devices("GPU"))))


def jax(case: Case) -> Peak:
    """JAX's operators, compiled."""
    import jax
    import jax.numpy as jnp

    def make(left, right, image, kernel):
        left, right, image, kernel = (jnp.asarray(x, case.precision) for x in (left, right, image, kernel))
        layout = ("NHWC", "HWIO", "NHWC")
        product = jax.jit(jnp.matmul)
        convolve = jax.jit(
            lambda x, y: jax.lax.conv_general_dilated(x, y, (1, 1), "SAME", dimension_numbers=layout)
        )
        return {
            "matmul": _repeated(lambda: product(left, right), jax.block_until_ready),
            "conv3x3": _repeated(lambda: convolve(image, kernel), jax.block_until_ready),
        }

    return Peak(make, _size(case, jax.default_backend() == "gpu"))


def torch(case: Case) -> Peak:
    """PyTorch's operators; on a GPU with the image in channels_last, the faster layout there."""
    import torch

    on_gpu = torch.cuda.is_available()

    def make(left, right, image, kernel):
        device, dtype = "cuda" if on_gpu else "cpu", getattr(torch, case.precision)
        left, right, image, kernel = (
            torch.from_numpy(x).to(device, dtype) for x in (left, right, image, kernel)
        )
        image, kernel = image.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1)
        layout = torch.channels_last if on_gpu else torch.contiguous_format
        image, kernel = (x.contiguous(memory_format=layout) for x in (image, kernel))
        wait = torch.cuda.synchronize if on_gpu else lambda: None
        convolve = torch.nn.functional.conv2d
        return {
            "matmul": _repeated(lambda: torch.matmul(left, right), lambda _: wait()),
            "conv3x3": _repeated(lambda: convolve(image, kernel, padding=1), lambda _: wait()),
        }

    return Peak(make, _size(case, on_gpu))


def measured(arguments: argparse.Namespace, precision: str) -> list[dict[str, Any]]:
    """Measure the speed of each kernel in each framework, in turn. The fastest median is the limit.

    Frameworks that fail are left out.

    Args:
        arguments: Parsed options of the benchmark. A peer's interpreter runs PyTorch.
        precision: "float32", "bfloat16" or "float16".

    Returns:
        One row per kernel and framework.
    """
    interpreters = {name: sys.executable for name in FRAMEWORKS if importlib.util.find_spec(name)}
    if arguments.peer_python:
        interpreters["torch"] = arguments.peer_python
    case = Case("peak", "tiny" if arguments.quick else "", precision=precision)
    if arguments.in_process:
        backend = importlib.import_module("keras").backend.backend()
        makers: list = [lambda: workers.InProcess(backend, f"benchmarks.peak:{backend}", case)]
    else:
        makers = [
            lambda name=name, python=python: Subprocess(name, f"benchmarks.peak:{name}", case, python)
            for name, python in interpreters.items()
        ]
    with workers.opened(makers) as contestants:
        answers = workers.alternate(contestants, 0 if arguments.quick else 2, 1 if arguments.quick else 7)
    return [
        {
            "contestant": name,
            "kernel": kernel,
            "precision": precision,
            "gflops": statistics.median(answer[kernel] for answer in rounds),
            "gflops_max": max(answer[kernel] for answer in rounds),
        }
        for name, rounds in answers.items()
        for kernel in ("matmul", "conv3x3")
    ]


def _size(case: Case, on_gpu: bool) -> str:
    return "quick" if case.network == "tiny" else "gpu" if on_gpu else "cpu"


def _repeated(call: Callable, wait: Callable) -> Callable[[int], None]:
    """A function that makes a number of calls and waits for the last result."""

    def run(times: int) -> None:
        for _ in range(times):
            result = call()
        wait(result)

    return run


def _fetch(tensor: Any) -> None:
    """Wait for a TensorFlow tensor by copying one of its numbers to the host."""
    tensor[(0,) * tensor.shape.rank].numpy()
