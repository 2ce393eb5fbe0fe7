"""Import matplotlib when it is first used, and show finished figures.

Importing the package is cheap on a server, because matplotlib is loaded with the first figure.
"""

from __future__ import annotations

import functools
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Backends that only write files: showing a figure with them does nothing but warn.
FILE_BACKENDS = {"agg", "cairo", "pdf", "pgf", "ps", "svg", "template"}


def pyplot() -> ModuleType:
    """Import matplotlib.pyplot at the first call and return it."""
    import matplotlib.pyplot

    return matplotlib.pyplot


def finish(figure: Figure, show: bool) -> Figure:
    """Return a finished figure to the caller, and show it if asked to and if there is a display.

    A notebook displays every new figure below the cell that made it. If the figure is also the value of the
    cell, the notebook would display it twice. This function suppresses the second one.
    """
    import matplotlib

    backend = matplotlib.get_backend().lower()
    if show and backend not in FILE_BACKENDS:
        pyplot().show()
    if "inline" in backend:
        hook = functools.partial(_display_in_notebook, figure, _cell_number())
        figure._ipython_display_ = hook  # type: ignore[attr-defined]
    return figure


def _display_in_notebook(figure: Any, own_cell: int | None) -> None:
    """Display a figure, unless it is the value of the cell that made it. IPython calls this function."""
    shell = _shell()
    is_value = getattr(getattr(shell, "displayhook", None), "exec_result", None) is not None
    if is_value and _cell_number() == own_cell:
        return
    del figure._ipython_display_
    sys.modules["IPython"].display.display(figure)


def _cell_number() -> int | None:
    """Return the number of the running notebook cell, or None outside notebooks."""
    return getattr(_shell(), "execution_count", None)


def _shell() -> Any:
    """Return IPython's shell, or None outside IPython."""
    ipython = sys.modules.get("IPython")
    return ipython.get_ipython() if ipython is not None else None
