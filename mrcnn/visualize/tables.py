"""Show tables of values and weight statistics in notebooks and terminals."""

import html
import re
import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from mrcnn.visualize.weight_statistics import LayeredModel, weight_statistics


def display_table(table: Sequence[Sequence[Any]]) -> None:
    """Show rows of values as an HTML table in a notebook, or as aligned text on stdout.

    Cells may contain HTML tags for emphasis and color. The text form leaves these out.
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


def display_weight_stats(model: LayeredModel) -> None:
    """Show shape, minimum, maximum and standard deviation of every weight tensor, and flag suspicious ones.

    "dead?" marks a tensor whose values are all equal, with "constant" if that value is not zero. Biases of
    convolutions are exempt, because they are initialized with zeros. "Overflow?" marks values whose magnitude
    exceeds 1000 and values that are not finite.

    Args:
        model: A `MaskRCNN` in either mode.
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
    # Remove only tags that mark text: a cell may hold "<lambda>".
    return html.unescape(re.sub(r"</?(?:span|font|b|i|em|strong)\b[^>]*>", "", cell))


def _in_red(text: str) -> str:
    return f'<span style="color:red">{text}</span>'


def in_notebook() -> bool:
    """Return whether a Jupyter kernel, which can show HTML, runs this code."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
