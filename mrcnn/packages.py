"""Optional packages, imported where they are needed."""

import importlib
from typing import Any


def require(module: str, purpose: str, *, package: str | None = None, extra: str | None = None) -> Any:
    """Import a module of an optional package.

    Args:
        module: Its name.
        purpose: What needs it, and the verb, for the error: "Data frames need".
        package: The package that has the module; by default the one of the same name.
        extra: The extra of keras-mrcnn that contains the package; None if there is none.

    Raises:
        ImportError: If it is missing. The error says how to install it.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = package or module
        installed = f'"keras-mrcnn[{extra}]"' if extra else package
        raise ImportError(
            f"{purpose} the package {package}. Install it with: pip install {installed}"
        ) from error
