"""Instruction sets of the processor, and the GPUs that multiply bfloat16."""

import functools
from pathlib import Path

import cv2

# Numbers of cv::CpuFeatures.
AVX2, AVX_512F = 11, 13
# Flags of the Linux kernel for instructions that multiply bfloat16: those of AMX, and those of AVX-512.
BFLOAT16_FLAGS = {"amx_bf16", "avx512_bf16"}
# NVIDIA GPUs multiply bfloat16 in tensor cores from this compute capability on.
BFLOAT16_CAPABILITY = (8, 0)
CPU_INFO = Path("/proc/cpuinfo")


def lacks_avx512() -> bool:
    """Return whether this is an x86 processor with AVX2 and without AVX-512."""
    return cv2.checkHardwareSupport(AVX2) and not cv2.checkHardwareSupport(AVX_512F)


def flags_of(cpu_info: str) -> set[str]:
    """Return the flags of the first core in the text of /proc/cpuinfo; none if it has no such line."""
    for line in cpu_info.splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "flags":
            return set(value.split())
    return set()


def flags() -> set[str]:
    """Return the flags of this machine's processor, as Linux reports them; none on other systems."""
    try:
        return flags_of(CPU_INFO.read_text(encoding="utf-8", errors="replace"))
    except OSError:
        return set()


@functools.cache
def has_bfloat16() -> bool:
    """Return whether this is an x86 processor with bfloat16 instructions; False on systems without /proc."""
    return bool(BFLOAT16_FLAGS & flags())
