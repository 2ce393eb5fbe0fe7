"""Tables of values and of weight statistics, in notebooks and in terminals."""

import html
import re
import sys
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any


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

    model: a `MaskRCNN`. "dead?" marks tensors of one value (but not the bias of a convolution,
    which starts as zeros), "Overflow?" values beyond 1000 or not finite.
    """
    table = [["WEIGHT NAME", "SHAPE", "MIN", "MAX", "STD"]]
    for layer in model.get_trainable_layers():
        for i, (variable, values) in enumerate(zip(layer.weights, layer.get_weights(), strict=True)):
            if values.size == 0:
                continue
            low, high = values.min(), values.max()
            is_bias = type(layer).__name__ == "Conv2D" and i == 1
            warning = ""
            if low == high and not is_bias:
                warning += _in_red(" dead?")
            if not (abs(low) <= 1000 and abs(high) <= 1000):
                warning += _in_red(" Overflow?")
            table.append(
                [
                    html.escape(_weight_name(layer, variable)) + warning,
                    str(values.shape),
                    f"{low:+9.4f}",
                    f"{high:+10.4f}",
                    f"{values.std():+9.4f}",
                ]
            )
    display_table(table)


def _weight_name(layer: Any, variable: Any) -> str:
    """Layer and variable, as "conv1/kernel": Keras 3 keeps the layer in `path` alone."""
    name = getattr(variable, "path", variable.name)
    return name if "/" in name else f"{layer.name}/{name}"


def _plain_text(cell: str) -> str:
    # Only tags that mark text: a cell may hold "<lambda>".
    return html.unescape(re.sub(r"</?(?:span|font|b|i|em|strong)\b[^>]*>", "", cell))


def _in_red(text: str) -> str:
    return f'<span style="color:red">{text}</span>'


def in_notebook() -> bool:
    """Whether a Jupyter kernel runs this code, which can show HTML."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")
