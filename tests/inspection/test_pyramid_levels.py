import numpy as np
import pytest
from matplotlib.collections import LineCollection

from mrcnn import inspection
from mrcnn.config import Config
from mrcnn.inspection import pyramid_levels

pytestmark = pytest.mark.usefixtures("close_figures")


def squares(*sides):
    """Square boxes with their top-left corner at (10, 20)."""
    return np.array([[10, 20, 10 + side, 20 + side] for side in sides])


@pytest.fixture
def large_image():
    return np.zeros((1024, 1024, 3), np.uint8)


@pytest.mark.parametrize(
    ("side", "exact", "level"),
    [
        (14, 0.0, 2),  # limited to P2
        (56, 2.0, 2),
        (76, 2.44, 2),
        (83, 2.57, 3),
        (112, 3.0, 3),
        (150, 3.42, 3),
        (170, 3.60, 4),  # FPN, which rounds down, would choose P3
        (224, 4.0, 4),
        (448, 5.0, 5),
        (900, 6.01, 5),  # limited to P5
    ],
)
def test_level_is_the_rounded_equation(large_image, side, exact, level):
    levels = inspection.assign_levels(large_image, squares(side))
    assert levels.sides.tolist() == [side]
    assert 4 + np.log2(side / 224) == pytest.approx(exact, abs=0.01)
    assert levels.levels.tolist() == [level]


@pytest.mark.parametrize("conventions", ["torchvision", "detectron2"])
@pytest.mark.parametrize(
    ("side", "level"),
    [(111, 2), (112, 3), (170, 3), (223, 3), (224, 4), (300, 4), (447, 4), (448, 5), (900, 5)],
)
def test_other_conventions_round_down(large_image, conventions, side, level):
    config = Config()
    config.CONVENTIONS = conventions
    assert inspection.assign_levels(large_image, squares(side), config).levels.tolist() == [level]


def test_a_config_of_the_default_conventions_changes_nothing(large_image):
    boxes = squares(83, 170, 400)
    found = inspection.assign_levels(large_image, boxes, Config())
    assert found.levels.tolist() == inspection.assign_levels(large_image, boxes).levels.tolist() == [3, 4, 5]


def test_side_is_that_of_a_square_of_the_same_area(large_image):
    levels = inspection.assign_levels(large_image, [[0, 0, 56, 896], [0, 0, 896, 56]])
    np.testing.assert_allclose(levels.sides, [224, 224])
    assert levels.levels.tolist() == [4, 4]


def test_level_depends_on_pixels_of_the_molded_image_only():
    for shape in ((256, 256, 3), (512, 1024, 3)):
        assert inspection.assign_levels(np.zeros(shape), squares(112)).levels.tolist() == [3]


def test_counts_include_empty_levels(large_image):
    levels = inspection.assign_levels(large_image, squares(20, 30, 300, 500))
    assert levels.counts == {2: 2, 3: 0, 4: 1, 5: 1}
    assert inspection.assign_levels(large_image, np.zeros((0, 4))).counts == {2: 0, 3: 0, 4: 0, 5: 0}


def test_figure_colors_boxes_by_level_and_plots_side_against_level(large_image):
    levels = inspection.assign_levels(large_image, squares(20, 120, 130))
    image_ax, plot_ax = inspection.draw_levels(levels).axes
    (lines,) = (c for c in image_ax.collections if isinstance(c, LineCollection))
    colors = [pyramid_levels.COLORS[level] for level in (2, 3, 3)]
    np.testing.assert_allclose(lines.get_colors()[:, :3], colors)
    texts = [text.get_text() for text in image_ax.get_legend().get_texts()]
    assert texts == ["P2, stride 4: 1", "P3, stride 8: 2", "P4, stride 16: 0", "P5, stride 32: 0"]
    points = plot_ax.collections[-1].get_offsets()
    np.testing.assert_allclose(points, [[20, 2], [120, 3], [130, 3]])
    # 224 pixels, and the sides at which rounding changes the level.
    assert [label.get_text() for label in plot_ax.get_xticklabels()] == ["224", "79", "158", "317"]
    assert [label.get_text() for label in plot_ax.get_yticklabels()] == ["P2", "P3", "P4", "P5"]
    assert plot_ax.get_title() == "level = 4 + log2(side / 224), rounded"


def test_figure_of_levels_that_are_rounded_down(large_image):
    config = Config()
    config.CONVENTIONS = "torchvision"
    levels = inspection.assign_levels(large_image, squares(170, 300), config)
    plot_ax = inspection.draw_levels(levels).axes[1]
    assert plot_ax.get_title() == "level = 4 + log2(side / 224), rounded down"
    assert [label.get_text() for label in plot_ax.get_xticklabels()] == ["112", "224", "448"]
    (steps,) = (c for c in plot_ax.collections if isinstance(c, LineCollection))
    edges = [segment[:, 0].tolist() for segment in steps.get_segments()]
    assert edges[1:3] == [[112, 224], [224, 448]]  # P3 and P4
    np.testing.assert_allclose(plot_ax.collections[-1].get_offsets(), [[170, 3], [300, 4]])


def test_figure_without_boxes(large_image):
    figure = inspection.draw_levels(inspection.assign_levels(large_image, np.zeros((0, 4))))
    figure.canvas.draw()
    assert figure.axes[0].get_title() == "0 boxes by pyramid level"
