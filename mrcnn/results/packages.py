"""Packages that one format alone needs."""

import importlib
from typing import Any


def require(module: str, purpose: str) -> Any:
    """Import a package.

    Args:
        module: Its name.
        purpose: What needs it, for the error.

    Raises:
        ImportError: If it is missing. The error says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ImportError(
            f'{purpose} need the package {module}. Install it with: pip install "keras-mrcnn[results]"'
        ) from error
