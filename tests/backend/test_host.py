"""What is set for the whole process: precision, the heap, the processor's features."""

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from mrcnn import backend
from mrcnn.backend import cpu, host_memory, precision

CPU_INFO = Path("/proc/cpuinfo")
on_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has these functions")


@pytest.mark.parametrize(
    ("name", "policy", "compute_dtype"),
    [
        ("float32", "float32", "float32"),
        ("bfloat16", "mixed_bfloat16", "bfloat16"),
        ("float16", "mixed_float16", "float16"),
    ],
)
def test_layers_have_the_precision_of_their_scope(name, policy, compute_dtype):
    before = keras.config.dtype_policy()
    with precision.scope(name):
        layer = keras.layers.Dense(2)
        assert keras.config.dtype_policy().name == policy
    layer.build((None, 3))
    assert layer.compute_dtype == compute_dtype
    assert layer.kernel.dtype == "float32"
    assert keras.config.dtype_policy() is before


def test_the_policy_is_restored_after_an_error():
    before = keras.config.dtype_policy()
    with pytest.raises(RuntimeError), precision.scope("bfloat16"):
        raise RuntimeError
    assert keras.config.dtype_policy() is before


@pytest.mark.skipif(
    not CPU_INFO.exists() or platform.machine() not in ("x86_64", "AMD64"), reason="x86 processors on Linux"
)
def test_lacks_avx512():
    """As the kernel of the operating system reports it."""
    flags = re.search(r"^flags\s*:(.*)$", CPU_INFO.read_text(), re.MULTILINE).group(1).split()
    assert cpu.lacks_avx512() == ("avx2" in flags and "avx512f" not in flags)


@on_glibc
def test_freed_memory_goes_back_to_the_system():
    """Blocks below a later one, which the C library does not return by itself."""
    backend.keep_host_memory()
    blocks = [np.ones(4096, "uint8") for _ in range(25_000)]
    last = np.ones(4096, "uint8")
    full = resident_bytes()
    del blocks
    backend.give_back_host_memory()
    assert resident_bytes() < full - 50_000_000
    assert last.all()


def resident_bytes():
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- PRECISION = "auto" ---

INTEL = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu avx2 avx512f {}\nbugs\t\t: none\n"


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("", False),
        ("avx512_vnni avx512vl", False),
        ("avx512_bf16", True),
        ("amx_tile amx_bf16 amx_int8", True),
        ("amx_tile amx_int8", False),
    ],
)
def test_has_bfloat16(extra, expected, tmp_path, monkeypatch):
    (tmp_path / "cpuinfo").write_text(2 * INTEL.format(extra))
    monkeypatch.setattr(cpu, "CPU_INFO", tmp_path / "cpuinfo")
    assert cpu.has_bfloat16.__wrapped__() == expected


def test_has_no_bfloat16_where_nothing_tells(tmp_path, monkeypatch):
    monkeypatch.setattr(cpu, "CPU_INFO", tmp_path / "missing")
    assert cpu.has_bfloat16.__wrapped__() is False
    assert cpu.flags_of("Features\t: fp asimd bf16\n") == set()


@pytest.mark.parametrize("has_instructions", [True, False])
def test_bfloat16_is_fast(has_instructions, monkeypatch):
    """XLA does not use the instructions of the processor."""
    if not backend.is_on_cpu(keras.ops.ones(1)):
        pytest.skip("needs a machine without an accelerator")
    monkeypatch.setattr(cpu, "has_bfloat16", lambda: has_instructions)
    assert backend.bfloat16_is_fast() == (has_instructions and keras.backend.backend() != "jax")


@pytest.mark.parametrize("is_safe", [True, False])
@pytest.mark.parametrize("is_fast", [True, False])
def test_auto_precision(is_safe, is_fast, monkeypatch):
    monkeypatch.setattr(backend, "bfloat16_is_fast", lambda: is_fast)
    assert precision.chosen("auto", is_safe) == ("bfloat16" if is_safe and is_fast else "float32")
    assert precision.chosen("float16", is_safe) == "float16"
    with precision.scope("auto", is_safe):
        assert keras.config.dtype_policy().compute_dtype == precision.chosen("auto", is_safe)


# --- Memory between calls ---

# Page faults of the second of two blocks of 64 MB, of which the first is free when the second is requested.
FAULTS = """
import importlib.util, resource, sys
import numpy as np

spec = importlib.util.spec_from_file_location("host_memory", sys.argv[1])
host_memory = importlib.util.module_from_spec(spec)
spec.loader.exec_module(host_memory)
if sys.argv[2] == "keep":
    host_memory.keep_host_memory(large_blocks=True)
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = np.empty(1 << 26, np.uint8)
    block[::4096] = 1
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    del block
print(faults)
"""


@on_glibc
@pytest.mark.parametrize(
    ("choice", "own", "keeps"), [("keep", 0, True), ("no", 0, False), ("keep", 1, False)]
)
def test_large_blocks_stay(choice, own, keeps):
    """Between calls, unless the user has other wishes."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    if own:
        environment["MALLOC_MMAP_THRESHOLD_"] = "4194304"
    environment["NUMPY_MADVISE_HUGEPAGE"] = "0"
    command = [sys.executable, "-c", FAULTS, host_memory.__file__, choice]
    faults = int(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert (faults < 1000) == keeps  # 64 MB are 16,384 pages
