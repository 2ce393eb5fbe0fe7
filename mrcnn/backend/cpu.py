"""What the machine computes with."""

from typing import Any

import cv2
import keras

Tensor = Any

# Numbers of instruction sets in OpenCV's cv::CpuFeatures.
AVX2, AVX_512F = 11, 13


def is_on_cpu(tensor: Tensor) -> bool:
    """Whether what is computed from a tensor is computed by the processor and not by an accelerator."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow

        return not tensorflow.config.list_physical_devices("GPU")
    if backend == "jax":
        import jax

        return jax.default_backend() == "cpu"
    return tensor.device.type == "cpu"


def has_avx2_at_most() -> bool:
    """Whether this is an x86 processor with AVX2 and without AVX-512."""
    return cv2.checkHardwareSupport(AVX2) and not cv2.checkHardwareSupport(AVX_512F)
