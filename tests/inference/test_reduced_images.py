"""Large JPEG files that are decoded at a part of their size."""

import functools

import keras
import numpy as np
import PIL.Image
import pytest
from tiny_model import TinyConfig, vary_masks

import mrcnn
from mrcnn.files.images import read_image, read_labels
from mrcnn.formats.predictions import write_predictions
from mrcnn.inference.inputs import mold_inputs
from mrcnn.inference.reduced_images import ReducedImage, read_reduced, reduction
from mrcnn.scale.worker import Worker

pytestmark = [
    pytest.mark.usefixtures("eager_tensorflow"),
    pytest.mark.filterwarnings("ignore::mrcnn.errors.CappedWarning"),
]


class SquareConfig(TinyConfig):
    IMAGE_RESIZE_MODE = "square"
    REDUCED_JPEG = True


def smooth(height, width):
    """An image in which neighboring pixels hardly differ, but the two directions do."""
    rows, columns = np.linspace(0, 1, height)[:, None], np.linspace(0, 1, width)
    planes = [rows + 0 * columns, columns**2 + 0 * rows, np.sin(3 * rows) * columns]
    return np.rint(np.stack(planes, axis=-1) * 255).astype(np.uint8)


def write(path, image, **options):
    PIL.Image.fromarray(image).save(path, quality=95, subsampling=0, **options)
    return path


def test_jpeg_files_are_decoded_at_a_part_of_their_size(tmp_path):
    path = write(tmp_path / "a.jpg", smooth(300, 212))
    part = read_image(path, reduced=4)
    assert part.shape == (75, 53, 3)
    np.testing.assert_allclose(part.astype(int), read_image(path)[2::4, 2::4], atol=8)
    exif = PIL.Image.Exif()
    exif[274] = 6
    turned = read_image(write(tmp_path / "t.jpg", smooth(301, 211), exif=exif), reduced=4)
    assert turned.shape == (53, 76, 3)
    assert read_image(write(tmp_path / "a.png", smooth(301, 211)), reduced=4).shape == (301, 211, 3)
    assert read_image(write(tmp_path / "b.jpg", smooth(3, 200)), reduced=8).shape == (2, 100, 3)


@pytest.mark.parametrize(
    "size, settings, part",
    [
        ((400, 300), {}, 4),
        ((512, 512), {}, 8),
        ((5000, 300), {}, 8),
        ((127, 100), {}, 1),
        ((128, 10), {}, 2),
        ((512, 512), {"TEST_TIME_FLIPS": "all"}, 1),
        ((512, 512), {"IMAGE_RESIZE_MODE": "pad64"}, 1),
        ((512, 1024), {"IMAGE_RESIZE_MODE": "shortest", "IMAGE_MAX_DIM": 512}, 8),
        ((512, 1024), {"IMAGE_RESIZE_MODE": "shortest", "IMAGE_MIN_DIM": 128, "IMAGE_MAX_DIM": 256}, 4),
        ((512, 512), {"IMAGE_RESIZE_MODE": "none"}, 1),
    ],
)
def test_the_network_loses_no_pixels(size, settings, part):
    config = SquareConfig()
    for name, value in settings.items():
        setattr(config, name, value)
    assert reduction(size, config) == part


@pytest.mark.parametrize("mode", ["square", "shortest"])
@pytest.mark.parametrize("size", [(512, 768), (517, 389)])
def test_the_molded_image_stays_where_it_was(tmp_path, mode, size):
    config = SquareConfig()
    config.IMAGE_RESIZE_MODE = mode
    path = write(tmp_path / "a.jpg", smooth(*size))
    reduced = read_reduced(path, config=config)
    assert isinstance(reduced, ReducedImage) and reduced.shape == (*size, 3) and reduced.pixels.shape[0] < 200
    (one,), (other,) = mold_inputs([reduced], config), mold_inputs([read_image(path)], config)
    assert (one.window, one.original_shape) == (other.window, other.original_shape)
    np.testing.assert_allclose(one.meta, other.meta, rtol=0.005)
    y1, x1, y2, x2 = one.window
    inside = (slice(y1, y2), slice(x1, x2))
    np.testing.assert_allclose(one.pixels[inside], other.pixels[inside], atol=8)


def test_a_chosen_page_or_orientation_is_read_whole(tmp_path):
    pages = [PIL.Image.fromarray(smooth(300, 200)), PIL.Image.fromarray(smooth(400, 250))]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    assert read_reduced(tmp_path / "a.tif", config=SquareConfig(), page=1).shape == (400, 250, 3)
    exif = PIL.Image.Exif()
    exif[274] = 6
    path = write(tmp_path / "a.jpg", smooth(300, 200), exif=exif)
    whole = read_reduced(path, config=SquareConfig(), orientation=1)
    assert isinstance(whole, np.ndarray) and whole.shape == (300, 200, 3)
    assert read_reduced(path, config=SquareConfig(), page=None).shape == (200, 300, 3)


@pytest.fixture
def model(tmp_path):
    keras.utils.set_random_seed(2)
    return vary_masks(mrcnn.MaskRCNN("inference", SquareConfig(), tmp_path))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (60, 90, 3)).astype(np.uint8)
    image = np.asarray(PIL.Image.fromarray(noise).resize((360, 240), PIL.Image.Resampling.BICUBIC))
    write(folder / "a.jpg", image)
    write(folder / "b.png", image)
    return folder


def test_detections_are_in_pixels_of_the_whole_image(model, photos):
    paths = sorted(photos.iterdir())
    small, large = model.stream(paths)
    for one in (small, large):
        assert one["masks"].shape == (240, 360, len(one["scores"])) and len(one["scores"])
    assert large["rois"].max() > 64  # of the whole image
    reduced = read_reduced(paths[0], config=model.config)
    assert isinstance(reduced, ReducedImage)
    for one in (model.detect([reduced])[0], model.detect(reduced)[0]):
        assert one["rois"].tolist() == small["rois"].tolist()
    again = next(model.stream([functools.partial(read_reduced, paths[0], config=model.config)]))
    assert again["scores"].tolist() == small["scores"].tolist()


def test_only_models_that_wish_it_read_so(model, photos):
    assert isinstance(model.read_image(photos / "a.jpg"), ReducedImage)
    model.config.REDUCED_JPEG = False
    assert model.read_image(photos / "a.jpg").shape == (240, 360, 3)
    expected = model.detect(read_image(photos / "a.jpg"))[0]["scores"].tolist()
    assert next(model.stream([photos / "a.jpg"]))["scores"].tolist() == expected


def test_files_of_results_have_the_size_of_the_image(model, photos, tmp_path):
    write_predictions(
        model.detect, photos, tmp_path / "out", {1: "a", 2: "b"}, 0.0, verbose=0, read=model.read_image
    )
    (label,) = (tmp_path / "out").rglob("a*.png")
    assert read_labels(label).shape == (240, 360) and read_labels(label).any()
    worker = Worker(lambda: model, str(photos), str(tmp_path / "rows"), "m", 0.0)
    row = worker._row("a.jpg", (photos / "a.jpg").read_bytes())
    assert (row["height"], row["width"]) == (240, 360)
