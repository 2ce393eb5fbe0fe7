"""Keep what XLA compiles in a folder, so that the next process does not compile it again.

The environment variable MRCNN_COMPILATION_CACHE turns this on: "1" for the folder `compiled` beside Keras'
other files, by default ~/.keras/compiled, or the path of another folder. Each backend and each kind of
processor has a folder of its own in it, because compiled code fits one kind of processor. Nothing is ever
deleted; you can delete the folder at any time.

JAX keeps what takes longer than a second to compile. TensorFlow keeps what JIT_COMPILE compiles. Both still
trace the network in each process. TensorFlow's graphs without XLA and PyTorch compile nothing.
"""

import os
import platform
import zlib
from pathlib import Path

from mrcnn.backend import cpu

VARIABLE = "MRCNN_COMPILATION_CACHE"
FLAGS = "TF_XLA_FLAGS"  # read by TensorFlow when it compiles for the first time
TENSORFLOW_OPTION = "--tf_xla_persistent_cache_directory"


def cache_folder(backend: str) -> Path | None:
    """Return the folder for what a backend compiles, without creating it; None if the cache is off."""
    choice = os.environ.get(VARIABLE, "")
    if choice in ("", "0"):
        return None
    keras_home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    folder = keras_home / "compiled" if choice == "1" else Path(choice).expanduser()
    instructions = zlib.crc32(" ".join(sorted(cpu.flags())).encode())
    return folder / f"{backend}-{platform.machine()}-{instructions:08x}"


def use_for_tensorflow() -> None:
    """Let XLA in TensorFlow use the folder, unless the user has named another one."""
    folder, flags = cache_folder("tensorflow"), os.environ.get(FLAGS, "")
    if folder is not None and TENSORFLOW_OPTION not in flags:
        folder.mkdir(parents=True, exist_ok=True)
        os.environ[FLAGS] = f"{flags} {TENSORFLOW_OPTION}={folder}".strip()
