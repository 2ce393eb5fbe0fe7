"""Raise an error in a forked process, in which the framework's threads are missing and calls would hang."""

import os

# The process that first built a network. A process that forks from it inherits the number.
_first: int | None = None


def require_unforked() -> None:
    """Check that this process was not forked from a process in which a network was built.

    Raises:
        RuntimeError: If it was. The message says how to start the process instead.
    """
    global _first
    process = os.getpid()
    if _first is None:
        _first = process
    if process != _first:
        raise RuntimeError(
            f"Process {process} was forked from process {_first} after a network was built there. A fork "
            "does not copy the threads of TensorFlow, JAX or PyTorch, so a network would hang. Start "
            'processes with multiprocessing.get_context("spawn"), or fork before you build the first '
            "MaskRCNN."
        )
