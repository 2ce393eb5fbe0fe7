import numpy as np
import pytest

from mrcnn import inspection
from mrcnn.inspection import roi_align

ROIS = np.array([[8, 16, 40, 48], [0, 0, 64, 64], [50, 3, 61, 60]])

pytestmark = pytest.mark.usefixtures("close_figures")


@pytest.fixture(scope="module")
def pooled(detector, image):
    return inspection.pool_rois(detector, image, ROIS)


class TestPoolBins:
    def test_edges_are_rounded_and_parts_reach_to_whole_cells(self):
        # 1.2 and 8.6 round to cells 1 and 9: nine cells for seven bins of 9/7 cells.
        bins = roi_align.pool_bins(1.2, 8.6, 16, 7)
        assert bins.tolist() == [[1, 3], [2, 4], [3, 5], [4, 7], [6, 8], [7, 9], [8, 10]]

    def test_bins_divide_a_multiple_without_overlap(self):
        assert roi_align.pool_bins(2.0, 5.0, 16, 2).tolist() == [[2, 4], [4, 6]]

    def test_fewer_cells_than_bins_repeat(self):
        assert roi_align.pool_bins(3.0, 4.0, 16, 4).tolist() == [[3, 4], [3, 4], [4, 5], [4, 5]]

    def test_bins_are_clipped_to_the_map(self):
        assert roi_align.pool_bins(-3.0, 20.0, 4, 2).tolist() == [[0, 4], [4, 4]]
        assert roi_align.pool_bins(6.0, 2.0, 16, 1).tolist() == [[6, 7]]  # an inverted RoI has one cell


class TestRoiPool:
    def test_takes_the_maximum_of_each_bin(self):
        ramp = np.arange(36.0).reshape(6, 6, 1)
        features = roi_align.roi_pool(ramp, np.array([[0, 2], [2, 4]]), np.array([[1, 3], [3, 6]]))
        assert features[..., 0].tolist() == [[8, 11], [20, 23]]

    def test_an_empty_bin_is_zero(self):
        features = roi_align.roi_pool(np.ones((4, 4, 2)), np.array([[4, 4]]), np.array([[0, 2]]))
        assert features.tolist() == [[[0, 0]]]


class TestPoolRois:
    def test_aligned_features_are_the_networks_for_its_proposals(self, detector, image):
        pooled = inspection.pool_rois(detector, image)
        names = {"rois": "ROI", "features": "roi_align_classifier"}
        outputs = [(label, detector.keras_model.get_layer(name).output) for label, name in names.items()]
        values = detector.run_graph([image], outputs)
        is_filled = values["rois"][0].any(axis=1)
        assert len(pooled.rois) == is_filled.sum() > 1
        np.testing.assert_allclose(pooled.aligned, values["features"][0][is_filled], rtol=1e-4, atol=1e-4)

    def test_samples_run_evenly_from_edge_to_edge(self, pooled):
        # P2 has 16 cells for 64 pixels: a pixel at y lies at y / 63 * 15 cells.
        assert pooled.levels.tolist() == [2, 2, 2]
        assert pooled.rois.tolist() == ROIS.tolist()
        np.testing.assert_allclose(
            pooled.sample_rows[0], np.linspace(8 / 63 * 15, 39 / 63 * 15, 7), rtol=1e-5
        )
        np.testing.assert_allclose(
            pooled.sample_columns[0], np.linspace(16 / 63 * 15, 47 / 63 * 15, 7), rtol=1e-5
        )
        np.testing.assert_allclose(pooled.sample_rows[1], np.linspace(0, 15, 7), atol=1e-5)

    def test_aligned_features_are_bilinear_samples(self, pooled):
        level = pooled.maps[2]
        y, x = pooled.sample_rows[0, 3], pooled.sample_columns[0, 2]
        top, left = int(y), int(x)
        upper = level[top, left] * (1 - (x - left)) + level[top, left + 1] * (x - left)
        lower = level[top + 1, left] * (1 - (x - left)) + level[top + 1, left + 1] * (x - left)
        expected = upper * (1 - (y - top)) + lower * (y - top)
        np.testing.assert_allclose(pooled.aligned[0, 3, 2], expected, rtol=1e-4, atol=1e-4)

    def test_pooled_features_are_quantized(self, pooled):
        # Edges at 1.90 and 9.29 cells become cells 2 to 9: eight cells for seven bins.
        assert pooled.bin_rows[0].tolist() == [[2, 4], [3, 5], [4, 6], [5, 7], [6, 8], [7, 9], [8, 10]]
        rows, columns = pooled.bin_rows[0, 1], pooled.bin_columns[0, 4]
        cells = pooled.maps[2][slice(*rows), slice(*columns)]
        np.testing.assert_array_equal(pooled.pooled[0, 1, 4], cells.max(axis=(0, 1)))
        assert np.isin(pooled.pooled[0], pooled.maps[2]).all()
        assert not np.isin(pooled.aligned[0], pooled.maps[2]).all()

    def test_pool_size_and_no_rois(self, detector, image):
        pooled = inspection.pool_rois(detector, image, ROIS[:1], pool_size=14)
        assert pooled.aligned.shape == pooled.pooled.shape == (1, 14, 14, 8)
        assert inspection.pool_rois(detector, image, np.zeros((0, 4))).pooled.shape == (0, 7, 7, 8)


def test_figure(pooled):
    figure = inspection.draw_pooled_rois(pooled, limit=2, channel=3)
    figure.canvas.draw()
    assert len(figure.axes) == 10
    on_image, on_level, in_bins, aligned, bins = figure.axes[:5]
    samples = on_level.collections[0].get_offsets()
    assert len(samples) == 49
    np.testing.assert_allclose(samples[8], [pooled.sample_columns[0, 1], pooled.sample_rows[0, 1]])
    # On the image the samples run from the center of the first pixel to that of the last one.
    offsets = np.asarray(on_image.collections[0].get_offsets())
    np.testing.assert_allclose(offsets[[0, -1]], [[16, 8], [47, 39]], atol=1e-3)
    np.testing.assert_array_equal(on_level.images[0].get_array(), pooled.maps[2][..., 3])
    np.testing.assert_array_equal(aligned.images[0].get_array(), pooled.aligned[0, ..., 3])
    np.testing.assert_array_equal(bins.images[0].get_array(), pooled.pooled[0, ..., 3])
    assert aligned.images[0].get_clim() == bins.images[0].get_clim()
    assert len(in_bins.lines) == 49 + 1
    assert on_image.get_title() == "RoI of 32 x 32 pixels: P2"
    assert in_bins.get_title() == "ROIPool rounds to 8 x 8 cells"
    assert aligned.get_title() == "ROIAlign: 7 x 7"
