"""Datasets of every kind written as COCO files, and read again."""

import annotation_files as files
import numpy as np
import pytest
from pycocotools.coco import COCO

from mrcnn import formats
from mrcnn.dataset import Dataset
from mrcnn.errors import InvalidDataError, LeftOutWarning
from mrcnn.evaluation import coco
from mrcnn.files import images


def label_images(folder):
    """An image with objects, an empty one and one without labels."""
    for name in ("a", "b", "c"):
        files.write_picture(folder / "images" / f"{name}.png")
    files.write_picture(folder / "labels" / "a.png", files.labels())
    files.write_picture(folder / "labels" / "b.png", np.zeros_like(files.labels()))
    dataset = formats.LabelImageDataset()
    dataset.load(folder, classes=["cell"])
    dataset.prepare()
    return dataset


def read(path, *arguments):
    dataset = formats.CocoDataset()
    dataset.load(path, *arguments)
    dataset.prepare()
    return dataset


def test_written_and_read(tmp_path):
    dataset = label_images(tmp_path)
    formats.write_coco(dataset, tmp_path / "all.json")
    copy = read(tmp_path / "all.json")
    assert copy.problems.counts == {} and copy.class_names == dataset.class_names
    # Nobody knows whether the image without labels has objects.
    assert [info["path"].name for info in copy.image_info] == ["a.png", "b.png"]
    assert copy.is_listed_as_empty(1) and not copy.is_listed_as_empty(0)
    for got, expected in zip(copy.load_mask(0), dataset.load_mask(0), strict=True):
        assert np.array_equal(got, expected)
    assert len(COCO(tmp_path / "all.json").anns) == 2


def test_images_that_cannot_be_read_are_left_out(tmp_path):
    dataset = label_images(tmp_path)
    (tmp_path / "labels" / "a.png").write_bytes((tmp_path / "labels" / "a.png").read_bytes()[:60])
    with pytest.warns(LeftOutWarning, match=r"1 of 3 images cannot be read, and are left out: images/a\.png"):
        assert formats.write_coco(dataset, tmp_path / "all.json") == 1
    assert [info["path"].name for info in read(tmp_path / "all.json").image_info] == ["b.png"]
    before = (tmp_path / "all.json").read_text()
    with pytest.raises(InvalidDataError, match=r"None of the 1 images can be read: images/a\.png"):
        formats.write_coco(formats.subset(dataset, [0]), tmp_path / "all.json")
    assert (tmp_path / "all.json").read_text() == before


def test_crowds_and_joined_classes_stay(tmp_path):
    files.write_picture(tmp_path / "a.png")
    path = files.write_json(tmp_path / "x.json", files.coco_content(iscrowd=1))
    dataset = read(path)
    formats.write_coco(dataset, tmp_path / "new" / "y.json", images=tmp_path)
    copy = read(tmp_path / "new" / "y.json", tmp_path)
    assert copy.load_mask(0)[1].tolist() == [-1, 2]
    assert np.array_equal(copy.load_mask(0)[0], dataset.load_mask(0)[0])


def test_a_dataset_of_ones_own(tmp_path):
    class Own(Dataset):
        def load_mask(self, image_id):
            return np.stack([*files.masks(), np.zeros_like(files.masks()[0])], axis=-1), np.array([1, 1, 1])

    dataset = Own()
    dataset.add_class("own", 1, "thing")
    dataset.add_image("own", 0, str(files.write_picture(tmp_path / "images" / "a.png")))
    dataset.prepare()
    formats.write_coco(dataset, tmp_path / "x.json")
    assert np.array_equal(read(tmp_path / "x.json").load_mask(0)[0], np.stack(files.masks(), axis=-1))
    with pytest.raises(InvalidDataError, match=r"image id 0: The image must be a file below.*a\.png"):
        formats.write_coco(dataset, tmp_path / "x.json", images=tmp_path / "labels")
    dataset.image_info[0]["path"] = None
    with pytest.raises(InvalidDataError, match="must be a file"):
        formats.write_coco(dataset, tmp_path / "x.json")


def test_the_truth_of_an_evaluation_can_be_read(tmp_path):
    files.write_picture(tmp_path / "a.png")
    metrics = coco.CocoMetrics({1: "leaf"})
    masks = files.masks()[0][..., np.newaxis]
    metrics.add("a.png", masks.shape, coco.annotations_of(masks, [1]), [])
    metrics.write_truth(tmp_path / "truth.json")
    assert np.array_equal(read(tmp_path / "truth.json").load_mask(0)[0], masks)


class Lit(Dataset):
    """A photo with an EXIF orientation, in which the object is white, in the stored rows and columns."""

    def load_mask(self, image_id):
        return self.load_image(image_id)[..., :1] > 0, np.array([1])


class Turned(Lit):
    """It turns the photo itself, as OpenCV does, and scales its values."""

    def load_image(self, image_id):
        return images.read_image(self.open_image_file(image_id)) / 255


class Scaled(Lit):
    def load_image(self, image_id):
        return super().load_image(image_id)[..., 0:1] / 255


@pytest.mark.parametrize("kind", [Lit, Turned, Scaled])
@pytest.mark.parametrize("size", [(40, 60), (48, 48)])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_objects_stay_on_their_pixels_with_any_orientation(kind, size, orientation, tmp_path):
    photo = np.zeros((*size, 3), np.uint8)
    photo[4:16, 8:30] = photo[16:20, 8:10] = 255
    dataset = kind()
    dataset.add_class("own", 1, "thing")
    dataset.add_image("own", 0, files.write_picture(tmp_path / "a.png", photo, orientation))
    dataset.prepare()
    formats.write_coco(dataset, tmp_path / "x.json")
    copy = read(tmp_path / "x.json")
    masks, _ = copy.load_mask(0)
    np.testing.assert_array_equal(copy.load_image(0), masks * np.full(3, 255))


def test_images_in_a_format_of_ones_own_are_written(tmp_path):
    """Nothing says that they have an orientation."""

    class Own(Dataset):
        def load_mask(self, image_id):
            return files.masks()[0][..., np.newaxis], np.array([1])

    (tmp_path / "a.raw").write_bytes(b"no image")
    dataset = Own()
    dataset.add_class("own", 1, "thing")
    dataset.add_image("own", 0, tmp_path / "a.raw")
    dataset.prepare()
    assert formats.write_coco(dataset, tmp_path / "x.json") == 1
