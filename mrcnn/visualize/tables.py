"""Tables of values and of weight statistics, in notebooks and in terminals."""

import html
import re
import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from mrcnn.visualize.weight_statistics import weight_statistics


def display_table(table: Sequence[Sequence[Any]]) -> None:
    """Show rows of values: as an HTML table in a notebook, else as aligned text on stdout.

    Cells may hold HTML of their own, which the text leaves out.
    """
    rows = [[str(cell) for cell in row] for row in table]
    if in_notebook():
        from IPython.display import HTML, display

        body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
        display(HTML(f"<table>{body}</table>"))
        return
    rows = [[_plain_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip_longest(*rows, fillvalue="")]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=False)]
        print("  ".join(cells).rstrip())


def display_weight_stats(model: Any) -> None:
    """Show shape, minimum, maximum and deviation of every weight tensor, and what looks wrong.

    model: a `MaskRCNN`. "dead?" marks tensors of one value (but not the bias of a convolution, which
    starts as zeros), with "constant" where that value is not zero; "Overflow?" values beyond 1000 or not
    finite. See `weight_statistics`.
    """
    table = [["WEIGHT NAME", "SHAPE", "MIN", "MAX", "STD"]]
    for tensor in weight_statistics(model):
        warning = ""
        if tensor.is_constant:
            warning += _in_red(" dead?" if tensor.is_dead else " constant, dead?")
        if tensor.is_exploding:
            warning += _in_red(" Overflow?")
        table.append(
            [
                html.escape(tensor.name) + warning,
                str(tensor.values.shape),
                f"{tensor.low:+9.4f}",
                f"{tensor.high:+10.4f}",
                f"{tensor.std:+9.4f}",
            ]
        )
    display_table(table)


def _plain_text(cell: str) -> str:
    # Only tags that mark text: a cell may hold "<lambda>".
    return html.unescape(re.sub(r"</?(?:span|font|b|i|em|strong)\b[^>]*>", "", cell))


def _in_red(text: str) -> str:
    return f'<span style="color:red">{text}</span>'


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code, which can show HTML."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
