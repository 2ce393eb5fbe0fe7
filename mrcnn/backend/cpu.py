"""Detect instruction sets of the processor."""

import cv2

# Numbers of cv::CpuFeatures.
AVX2, AVX_512F = 11, 13


def lacks_avx512() -> bool:
    """Return whether this is an x86 processor with AVX2 and without AVX-512."""
    return cv2.checkHardwareSupport(AVX2) and not cv2.checkHardwareSupport(AVX_512F)
