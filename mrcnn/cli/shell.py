"""Commands as text that people can copy into their shell."""

import os
import shlex
import subprocess
from collections.abc import Sequence


def command_line(parts: Sequence[str]) -> str:
    """Return a command quoted for the shell of this system."""
    return subprocess.list2cmdline(parts) if os.name == "nt" else shlex.join(parts)
