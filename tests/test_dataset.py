"""Datasets: ids and maps after prepare, use before it, reading image files."""

import logging
import pickle

import numpy as np
import PIL.Image
import pytest

from mrcnn.dataset import Dataset, NotPreparedError


@pytest.fixture
def two_sources():
    dataset = Dataset()
    dataset.add_class("a", 7, "cat, kitten")
    dataset.add_class("b", 7, "dog")
    dataset.add_class("a", 7, "cat, kitten")
    dataset.add_image("b", "first", "/b/first.png", width=10)
    dataset.add_image("a", 99, "/a/99.png")
    dataset.prepare()
    return dataset


def test_ids_names_and_maps(two_sources):
    assert two_sources.class_names == ["BG", "cat", "dog"]
    assert two_sources.num_classes == 3
    assert two_sources.class_ids.tolist() == [0, 1, 2]
    assert two_sources.num_images == 2
    assert two_sources.image_ids.tolist() == [0, 1]
    assert two_sources.source_class_ids == {"": [0], "a": [0, 1], "b": [0, 2]}
    assert sorted(two_sources.sources) == ["", "a", "b"]
    assert two_sources.class_from_source_map == {".0": 0, "a.7": 1, "b.7": 2}
    assert two_sources.image_from_source_map == {"b.first": 0, "a.99": 1}
    assert two_sources.image_info[0] == {
        "id": "first",
        "source": "b",
        "path": "/b/first.png",
        "width": 10,
    }


def test_ids_to_and_from_the_source(two_sources):
    assert two_sources.map_source_class_id("b.7") == 2
    assert two_sources.get_source_class_id(2, "b") == 7
    with pytest.raises(ValueError, match=r"must be 'b', the source of class 2 \(dog\).*source='a'"):
        two_sources.get_source_class_id(2, "a")
    with pytest.raises(KeyError, match=r"no class 'c\.7'.*a\.7"):
        two_sources.map_source_class_id("c.7")


def test_images_are_listed_as_empty_only_by_their_annotations(two_sources):
    two_sources.add_image("a", 100, None, is_empty=True)
    two_sources.add_image("a", 101, None, is_empty=False)
    listed = [two_sources.is_listed_as_empty(image_id) for image_id in range(4)]
    assert listed == [False, False, True, False]


def test_links_and_references(two_sources):
    assert two_sources.source_image_link(1) == "/a/99.png"
    assert two_sources.image_reference(1) == ""


def test_later_additions_count_after_another_prepare(two_sources):
    two_sources.add_image("a", 100, None)
    two_sources.add_class("a", 8, "cow")
    assert two_sources.num_images == 2
    two_sources.prepare()
    assert two_sources.image_ids.tolist() == [0, 1, 2]
    assert two_sources.source_class_ids["a"] == [0, 1, 3]


def test_a_source_must_not_contain_a_dot():
    with pytest.raises(ValueError, match=r"dot.*'a\.b'"):
        Dataset().add_class("a.b", 1, "cat")


@pytest.mark.parametrize("class_id", [7, "7"])
def test_an_id_must_not_get_another_name(two_sources, class_id):
    with pytest.raises(ValueError, match=r"class_id='?7'? for 'dog', but 'cat, kitten' already has this id"):
        two_sources.add_class("a", class_id, "dog")
    two_sources.add_class("a", class_id, "cat, kitten")
    assert len(two_sources.class_info) == 3


def test_use_before_prepare_says_so():
    dataset = Dataset(class_map=None)
    dataset.add_class("a", 1, "cat")
    assert len(dataset.image_ids) == 0
    assert dataset.source_class_ids == {}
    for name in ("num_images", "num_classes", "class_names", "class_ids", "sources"):
        with pytest.raises(NotPreparedError, match=rf"{name}.*call prepare\(\)"):
            getattr(dataset, name)
    with pytest.raises(RuntimeError, match=r"call prepare\(\)"):
        dataset.map_source_class_id("a.1")
    assert not hasattr(dataset, "num_images")
    with pytest.raises(AttributeError, match="no attribute 'color'"):
        _ = dataset.color


def test_a_dataset_can_be_sent_to_another_process(two_sources):
    copy = pickle.loads(pickle.dumps(two_sources))
    assert copy.class_names == two_sources.class_names
    with pytest.raises(NotPreparedError):
        _ = pickle.loads(pickle.dumps(Dataset())).num_images


def test_default_mask_is_empty_and_logged(two_sources, caplog):
    with caplog.at_level(logging.WARNING, logger="mrcnn.dataset"):
        masks, class_ids = two_sources.load_mask(0)
    assert (masks.shape, masks.dtype) == ((0, 0, 0), bool)
    assert (class_ids.shape, class_ids.dtype) == ((0,), np.int32)
    assert "image id 0 (source 'b')" in caplog.text


def stored(folder, name, array, mode=None):
    path = folder / name
    PIL.Image.fromarray(array, mode).save(path)
    dataset = Dataset()
    dataset.add_image("files", 0, str(path))
    dataset.prepare()
    return dataset, path


PIXELS = np.arange(5 * 6 * 4, dtype=np.uint8).reshape(5, 6, 4)
GRAY = PIXELS[..., 0]


@pytest.mark.parametrize(
    ("name", "array", "wanted"),
    [
        ("rgb.png", PIXELS[..., :3], PIXELS[..., :3]),
        ("rgb.tif", PIXELS[..., :3], PIXELS[..., :3]),
        ("alpha.png", PIXELS, PIXELS[..., :3]),
        ("gray.png", GRAY, np.stack([GRAY] * 3, -1)),
        ("gray_alpha.png", PIXELS[..., :2], np.stack([GRAY] * 3, -1)),
        (
            "deep.png",
            GRAY.astype(np.uint16) * 300,
            np.stack([GRAY.astype(np.uint16) * 300] * 3, -1),
        ),
        ("real.tif", GRAY.astype(np.float32) / 8, np.stack([GRAY.astype(np.float32) / 8] * 3, -1)),
        ("bits.png", GRAY > 60, np.stack([(GRAY > 60) * np.uint8(255)] * 3, -1)),
        ("one_frame.gif", np.stack([GRAY] * 3, -1), np.stack([GRAY] * 3, -1)),
    ],
)
def test_image_files_become_three_channels_in_their_own_dtype(tmp_path, name, array, wanted):
    dataset, _ = stored(tmp_path, name, array)
    image = dataset.load_image(0)
    assert image.dtype == wanted.dtype
    np.testing.assert_array_equal(image, wanted)


def test_a_photo_is_decoded_as_by_pillow(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    dataset, path = stored(tmp_path, "photo.jpg", noise)
    np.testing.assert_array_equal(dataset.load_image(0), np.asarray(PIL.Image.open(path)))


@pytest.mark.parametrize("name", ["cut.png", "cut.jpg"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.6])
def test_a_broken_file_is_named(tmp_path, name, share):
    noise = np.random.default_rng(0).integers(0, 255, (40, 50, 3)).astype(np.uint8)
    dataset, path = stored(tmp_path, name, noise)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(OSError, match=rf"{name}: image id 0: \w"):
        dataset.load_image(0)


def test_missing_files_and_paths_are_named(tmp_path):
    dataset = Dataset()
    dataset.add_image("files", 0, str(tmp_path / "absent.png"))
    dataset.add_image("files", 1, None)
    with pytest.raises(FileNotFoundError, match=r"absent\.png: image id 0: There is no such file"):
        dataset.load_image(0)
    with pytest.raises(ValueError, match=r"Image id 1 has no path\. Override load_image in Dataset"):
        dataset.load_image(1)


def test_several_pages_are_refused(tmp_path):
    path = tmp_path / "pages.tif"
    page = PIL.Image.fromarray(PIXELS[..., :3])
    page.save(path, save_all=True, append_images=[page])
    dataset = Dataset()
    dataset.add_image("files", 0, path)
    with pytest.raises(ValueError, match=r"pages\.tif: image id 0: The file must hold one image.*2 pages"):
        dataset.load_image(0)
    dataset.image_info[0]["page"] = 1
    np.testing.assert_array_equal(dataset.load_image(0), PIXELS[..., :3])


def test_the_page_of_a_book_chooses_nothing(tmp_path):
    dataset, _ = stored(tmp_path, "a.png", PIXELS[..., :3])
    dataset.image_info[0]["page"] = 3
    np.testing.assert_array_equal(dataset.load_image(0), PIXELS[..., :3])


class OpensImages(Dataset):
    """A script's own helper, with a name that the library might have taken."""

    def open_image(self, path):
        return path.read()


def test_a_helper_to_open_images(tmp_path):
    _, path = stored(tmp_path, "a.png", PIXELS[..., :3])
    dataset = OpensImages()
    dataset.add_image("files", 0, path)
    np.testing.assert_array_equal(dataset.load_image(0), PIXELS[..., :3])


@pytest.mark.parametrize("channels", [3, "RGB", None, {"count": 3}, ["red", "green"]])
def test_a_number_of_channels_is_no_choice(channels, tmp_path):
    dataset, _ = stored(tmp_path, "a.png", PIXELS[..., :3])
    dataset.image_info[0]["channels"] = channels
    np.testing.assert_array_equal(dataset.load_image(0), PIXELS[..., :3])


@pytest.mark.parametrize("channels", [[2], (2, 0), [0, 1, 2, 2], range(1, 3), np.array([2, 0])])
def test_chosen_channels(channels, tmp_path):
    dataset, _ = stored(tmp_path, "a.png", PIXELS[..., :3])
    dataset.image_info[0]["channels"] = channels
    wanted = PIXELS[..., [2, 2, 2] if len(channels) == 1 else list(channels)]
    np.testing.assert_array_equal(dataset.load_image(0), wanted)


def test_an_exif_orientation_is_not_followed_and_named_once(tmp_path, caplog):
    path = tmp_path / "phone.png"
    image = PIL.Image.fromarray(PIXELS[..., :3])
    exif = image.getexif()
    exif[274] = 6
    image.save(path, exif=exif)
    dataset = Dataset()
    for image_id in range(2):
        dataset.add_image("files", image_id, path)
    for image_id in range(2):
        np.testing.assert_array_equal(dataset.load_image(image_id), PIXELS[..., :3])
    assert caplog.text.count("phone.png has the EXIF orientation 6") == 1
