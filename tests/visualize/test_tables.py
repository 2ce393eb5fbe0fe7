import keras
import numpy as np
import pytest

from mrcnn.visualize import tables


class Layers:
    """The part of a Mask R-CNN that the statistics read."""

    def __init__(self, *layers):
        self.layers = layers

    def get_trainable_layers(self):
        return list(self.layers)


def built(layer, shape, *weights):
    layer.build(shape)
    layer.set_weights([np.asarray(values, np.float32) for values in weights])
    return layer


@pytest.fixture
def statistics(capsys):
    rng = np.random.default_rng(0)
    kernel = rng.normal(0, 1, (3, 3, 2, 4))
    kernel[0, 0, 0, 0], kernel[0, 0, 0, 1] = -5.25, 4.5
    model = Layers(
        built(keras.layers.Conv2D(4, 3, name="alive"), (None, 8, 8, 2), kernel, np.zeros(4)),
        built(keras.layers.Conv2D(4, 3, name="stuck"), (None, 8, 8, 2), kernel * 0 + 2, np.zeros(4)),
        built(keras.layers.Dense(2, name="plain"), (None, 3), rng.normal(0, 1, (3, 2)), [0, 0]),
        built(keras.layers.Dense(1, name="huge"), (None, 2), [[1], [-1001]], [1]),
        built(keras.layers.Dense(1, name="broken"), (None, 2), [[1], [np.nan]], [1]),
    )
    assert tables.display_weight_stats(model) is None
    lines = capsys.readouterr().out.splitlines()
    rows = {line.split()[0].split(":")[0]: line for line in lines[1:]}
    return lines[0], rows, kernel.astype(np.float32)


def test_weight_stats_hold_shape_and_numbers(statistics):
    header, rows, kernel = statistics
    assert header.split() == ["WEIGHT", "NAME", "SHAPE", "MIN", "MAX", "STD"]
    assert len(rows) == 10
    assert rows["alive/kernel"].split("(3, 3, 2, 4)")[1].split() == [
        "-5.2500",
        "+4.5000",
        f"{kernel.std():+.4f}",
    ]


def test_weight_stats_mark_constant_and_large_tensors(statistics):
    _, rows, _ = statistics
    dead = {name for name, line in rows.items() if "dead?" in line}
    overflow = {name for name, line in rows.items() if "Overflow?" in line}
    assert "stuck/kernel" in dead and "plain/bias" in dead
    assert not dead & {"alive/kernel", "alive/bias", "stuck/bias", "plain/kernel", "huge/kernel"}
    assert overflow == {"huge/kernel", "broken/kernel"}


def test_table_is_aligned_text(capsys):
    assert tables.display_table([["NAME", "N"], ["a longer one", 7], ["b"]]) is None
    assert capsys.readouterr().out == "NAME          N\na longer one  7\nb\n"
    tables.display_table([])
    assert capsys.readouterr().out == ""


def test_table_text_leaves_marks_out_but_keeps_other_angle_brackets(capsys):
    tables.display_table([['<span style="color:red">bad</span> <lambda> a &lt; b <b>!</b>']])
    assert capsys.readouterr().out == "bad <lambda> a < b !\n"
