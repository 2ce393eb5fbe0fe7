"""GeoJSON files and ImageJ RoIs that people and programs write, and broken ones."""

import zipfile

import annotation_files as files
import numpy as np
import pytest
import tifffile

from mrcnn.errors import InvalidDataError, MissingFileError
from mrcnn.formats import GeoJsonDataset, ImageJDataset, problems

SQUARE = [[10, 8], [40, 8], [40, 30], [10, 30], [10, 8]]
HOLE = [[20, 10], [30, 10], [30, 20], [20, 20], [20, 10]]


def feature(geometry=None, label="leaf", **properties):
    if label is not None:
        properties["classification"] = {"name": label}
    geometry = {"type": "Polygon", "coordinates": [SQUARE]} if geometry is None else geometry
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def geojson(folder, content, name="a", **options):
    files.write_picture(folder / "images" / f"{name}.png")
    if isinstance(content, bytes):
        (folder / "shapes").mkdir(exist_ok=True)
        (folder / "shapes" / f"{name}.geojson").write_bytes(content)
    else:
        files.write_json(folder / "shapes" / f"{name}.geojson", content)
    dataset = GeoJsonDataset()
    dataset.load(folder / "shapes", folder / "images", **options)
    dataset.prepare()
    return dataset


@pytest.mark.parametrize("content", [collection(feature()), [feature()], feature()])
def test_forms_of_a_file(content, tmp_path):
    dataset = geojson(tmp_path, content)
    assert dataset.class_names == ["BG", "leaf"] and dataset.problems.counts == {}
    np.testing.assert_array_equal(dataset.load_mask(0)[0][..., 0], files.masks()[0])


def test_hidden_files_of_a_mac_are_ignored(tmp_path):
    (tmp_path / "shapes").mkdir()
    (tmp_path / "shapes" / "._a.geojson").write_bytes(b"\0\5\x16\7")
    assert geojson(tmp_path, collection(feature())).problems.counts == {}


def test_holes_and_parts(tmp_path):
    other = [[x + 45, y] for x, y in SQUARE]
    geometry = {"type": "MultiPolygon", "coordinates": [[SQUARE, HOLE], [other]]}
    mask = geojson(tmp_path, collection(feature(geometry))).load_mask(0)[0][..., 0]
    expected = files.masks()[0].copy()
    expected[10:20, 20:30] = False
    expected[8:30, 55:85] = True
    np.testing.assert_array_equal(mask, expected)


def test_other_properties_and_no_class(tmp_path):
    content = collection(feature(label=None, species="oak"), feature(label=None))
    dataset = geojson(tmp_path, content, class_property="species")
    assert dataset.class_names == ["BG", "oak"] and dataset.problems.counts == {problems.UNKNOWN_CLASS: 1}
    listed = collection(feature(label=None, classification={"names": ["tree", "old"]}))
    assert geojson(tmp_path, listed).class_names == ["BG", "tree: old"]
    dataset = geojson(tmp_path, content, classes=["tree"])
    assert len(dataset.load_mask(0)[1]) == 2  # the only class is meant
    with pytest.raises(InvalidDataError, match="No object has a class"):
        geojson(tmp_path, content)


@pytest.mark.parametrize(
    "wrong, kind",
    [
        (feature({"type": "Point", "coordinates": [1, 2]}), problems.NO_OUTLINE),
        (feature({"type": "Polygon", "coordinates": [[[1, 2], [3, 4]]]}), problems.BROKEN_FIELD),
        (feature({"type": "Polygon", "coordinates": [[[1, "a"], [3, 4], [5, 6]]]}), problems.BROKEN_FIELD),
        (feature({"type": "Polygon", "coordinates": "none"}), problems.BROKEN_FIELD),
        (feature({"type": "Polygon", "coordinates": [[[0, 0], [1e999, 0], [0, 5]]]}), problems.BROKEN_FIELD),
        (feature({"type": "Polygon", "coordinates": [[[0, 0], [5, 5], [9, 9]]]}), problems.NO_AREA),
        (feature({"type": "MultiPolygon", "coordinates": [[]]}), problems.BROKEN_FIELD),
        ({"type": "Feature", "properties": {"classification": "leaf"}}, problems.BROKEN_FIELD),
        (feature(label="bush"), problems.UNKNOWN_CLASS),
        ("text", problems.UNKNOWN_CLASS),
    ],
)
def test_a_broken_feature_is_left_out_and_named(wrong, kind, tmp_path):
    dataset = geojson(tmp_path, collection(wrong, feature()), classes=["leaf", "nut"])
    assert dataset.problems.counts == {kind: 1} and "features[0]" in dataset.problems.names[kind][0]
    assert dataset.load_mask(0)[1].tolist() == [1]


@pytest.mark.parametrize(
    "content", [b"", b"{", b"3", b'{"type": "Topology"}', b'{"features": []}', b"[" * 100000, b"\xff"]
)
def test_a_broken_file_leaves_its_image_without_objects(content, tmp_path):
    geojson(tmp_path, collection(feature()), name="b")
    dataset = geojson(tmp_path, content)
    assert dataset.problems.counts == {problems.BROKEN_FIELD: 1}
    assert not dataset.is_listed_as_empty(0) and [len(dataset.load_mask(n)[1]) for n in range(2)] == [0, 1]


def test_map_coordinates_need_an_image_on_a_map(tmp_path):
    dataset = geojson(tmp_path, collection(feature()) | {"crs": None})
    assert "must be a GeoTIFF file" in str(dataset.problems.names)


def test_folders(tmp_path):
    dataset = geojson(tmp_path, collection(feature()))
    files.write_picture(tmp_path / "images" / "c.png")
    dataset = GeoJsonDataset()
    dataset.load(tmp_path / "shapes", tmp_path / "images")
    assert dataset.problems.counts == {problems.MISSING_LABELS: 1} and len(dataset.image_info) == 2
    dataset = GeoJsonDataset()
    dataset.load(tmp_path / "shapes", tmp_path / "images", keep_empty=False)
    assert len(dataset.image_info) == 1
    for reader in (GeoJsonDataset, ImageJDataset):
        with pytest.raises(MissingFileError, match="There is no file"):
            reader().load(tmp_path / "nothing", tmp_path / "images")


# --- ImageJ ---


def rois(folder, *members, classes=("leaf",), file="a.zip"):
    """A dataset of RoIs, given as roifile's objects or as bytes."""
    files.write_picture(folder / "images" / "a.png")
    (folder / "rois").mkdir(exist_ok=True)
    contents = [one if isinstance(one, bytes) else one.tobytes() for one in members]
    if file.endswith(".roi"):
        (folder / "rois" / file).write_bytes(contents[0])
    else:
        with zipfile.ZipFile(folder / "rois" / file, "w") as archive:
            for number, content in enumerate(contents):
                archive.writestr(f"{number}.roi", content)
    dataset = ImageJDataset()
    dataset.load(folder / "rois", folder / "images", classes)
    dataset.prepare()
    return dataset


def roi(kind="POLYGON", **fields):
    roifile = pytest.importorskip("roifile")
    if kind in ("RECT", "OVAL", "LINE"):
        one = roifile.ImagejRoi()
        one.left, one.top, one.right, one.bottom = 10, 8, 40, 30
    else:
        one = roifile.ImagejRoi.frompoints(np.array(SQUARE[:4]))
    one.roitype = roifile.ROI_TYPE[kind]
    for name, value in fields.items():
        setattr(one, name, value)
    return one


@pytest.mark.parametrize("kind", ["POLYGON", "FREEHAND", "TRACED", "RECT"])
@pytest.mark.parametrize("file", ["a.zip", "a.roi"])
def test_kinds_of_rois(kind, file, tmp_path):
    dataset = rois(tmp_path, roi(kind), file=file)
    np.testing.assert_array_equal(dataset.load_mask(0)[0][..., 0], files.masks()[0])


def test_ovals_and_lines(tmp_path):
    dataset = rois(tmp_path, roi("OVAL"), roi("LINE"))
    mask = dataset.load_mask(0)[0][..., 0]
    assert mask.sum() == pytest.approx(np.pi * 15 * 11, rel=0.02)
    assert dataset.problems.counts == {problems.NO_OUTLINE: 1}


def test_classes_of_rois(tmp_path):
    """The property of this library, else the group, else nothing."""
    named = roi(group=1)
    named.properties = {"class": "nut"}
    dataset = rois(tmp_path, named, roi(group=2), roi(group=1), roi(), classes=["leaf", "nut"])
    assert dataset.load_mask(0)[1].tolist() == [2, 2, 1]
    assert dataset.problems.counts == {problems.UNKNOWN_CLASS: 1}
    with pytest.raises(InvalidDataError, match="No object has a class"):
        rois(tmp_path, roi(), classes=None)


def test_broken_rois_are_left_out_and_named(tmp_path):
    whole = roi().tobytes()
    curve = roi("RECT", shape_roi_size=9, multi_coordinates=np.array([0, 1, 1, 3, 1, 2, 3, 4, 4], np.float32))
    endless = roi("RECT", shape_roi_size=3, multi_coordinates=np.array([np.nan, 1, 1], np.float32))
    dataset = rois(tmp_path, whole, b"", b"Iout", whole[:70], b"x" * 200, curve, endless)
    assert len(dataset.load_mask(0)[1]) == 1
    assert dataset.problems.counts == {problems.BROKEN_FIELD: 6}
    assert all("a.zip: " in name for name in dataset.problems.names[problems.BROKEN_FIELD])
    (tmp_path / "rois" / "a.zip").write_bytes(b"PK no archive")
    dataset = ImageJDataset()
    dataset.load(tmp_path / "rois", tmp_path / "images", ["leaf"])
    assert dataset.problems.counts == {problems.BROKEN_FIELD: 1} and not dataset.image_info[0]["outlines"]
    assert not dataset.is_listed_as_empty(0)
    dataset = rois(tmp_path, whole[:70])
    assert not dataset.image_info[0]["outlines"] and not dataset.is_listed_as_empty(0)
    assert rois(tmp_path).is_listed_as_empty(0)


# --- Stacks ---


def stack(folder, axes, *lengths, **options):
    """An image a.tif with pages along some axes: ImageJ's, or none of a name."""
    (folder / "images").mkdir(exist_ok=True)
    pixels = np.zeros((*lengths, files.HEIGHT, files.WIDTH), np.uint8)
    options = options or {"imagej": True, "metadata": {"axes": f"{axes}YX"}}
    tifffile.imwrite(folder / "images" / "a.tif", pixels, photometric="minisblack", **options)


def objects_by_page(reader, folder, pages, annotations, **options):
    """The columns in which the objects of each page begin, and the problems of the last page."""
    found = []
    for page in range(pages):
        dataset = reader(page=page, **options)
        dataset.load(folder / annotations, folder / "images", ["leaf"])
        dataset.prepare()
        found.append([instance.box[1] for instance in dataset.load_instances(0)])
        assert not dataset.is_listed_as_empty(0)
    return found, dataset.problems.counts


def placed_rois(folder, *positions):
    """RoIs that begin in column 10, 11 and so on, with their positions, and one without."""
    rois(folder, *(roi(**position) for position in ({}, *positions)))
    (folder / "images" / "a.png").unlink()
    with zipfile.ZipFile(folder / "rois" / "a.zip", "w") as archive:
        for number, position in enumerate(({}, *positions)):
            archive.writestr(f"{number}.roi", roi(left=10 + number, right=40 + number, **position).tobytes())


@pytest.mark.parametrize(
    "axes, positions",
    [
        ("Z", [{"position": 1}, {"position": 2}, {"position": 3}]),
        ("Z", [{"position": n, "z_position": n} for n in (1, 2, 3)]),
        ("Z", [{"z_position": n, "c_position": 1, "t_position": 1} for n in (1, 2, 3)]),
        ("T", [{"position": n, "z_position": n} for n in (1, 2, 3)]),  # ImageJ calls each single axis z
        ("T", [{"z_position": n} for n in (1, 2, 3)]),
        ("T", [{"t_position": n, "z_position": 1} for n in (1, 2, 3)]),
        ("pages", [{"position": 1}, {"position": 2}, {"position": 3}]),
        ("pages", [{"t_position": n, "z_position": 1} for n in (1, 2, 3)]),
    ],
)
def test_a_page_has_the_rois_of_its_slice(axes, positions, tmp_path):
    placed_rois(tmp_path, *positions, {"position": 9})
    stack(tmp_path, axes, 3, **({"metadata": None} if axes == "pages" else {}))
    found = objects_by_page(ImageJDataset, tmp_path, 3, "rois")
    assert found == ([[10, 11], [10, 12], [10, 13]], {problems.OTHER_PAGE: 3})


def test_rois_of_a_hyperstack(tmp_path):
    """3 time points of 2 slices of 2 channels, on which the same objects are."""
    placed_rois(
        tmp_path,
        {"z_position": 2, "t_position": 3, "c_position": 2},
        {"z_position": 2},
        {"t_position": 3},
        {"position": 12},
    )
    stack(tmp_path, "TZC", 3, 2, 2)
    found, _ = objects_by_page(ImageJDataset, tmp_path, 6, "rois", channels=[0])
    assert found == [[10], [10, 12], [10], [10, 12], [10, 13], [10, 11, 12, 13, 14]]
    found, _ = objects_by_page(ImageJDataset, tmp_path, 12, "rois")  # each channel is a page of its own
    assert found[10] == found[11] == [10, 11, 12, 13, 14] and found[0] == found[1] == [10]


def test_an_image_whose_objects_lie_on_other_pages_is_not_kept(tmp_path):
    placed_rois(tmp_path)
    with zipfile.ZipFile(tmp_path / "rois" / "a.zip", "w") as archive:
        archive.writestr("0.roi", roi(position=2).tobytes())
    stack(tmp_path, "Z", 3)
    dataset = ImageJDataset(page=1)
    dataset.load(tmp_path / "rois", tmp_path / "images", ["leaf"], keep_empty=False)
    assert len(dataset.image_info) == 1 and dataset.problems.counts == {}
    with pytest.raises(InvalidDataError, match=r"no usable image.*\n.*another page of its file"):
        ImageJDataset(page=0).load(tmp_path / "rois", tmp_path / "images", ["leaf"], keep_empty=False)


def features_on(*planes):
    """Features that begin in column 10, 11 and so on, with their planes."""
    found = []
    for number, plane in enumerate(planes):
        square = [[x + number, y] for x, y in SQUARE]
        geometry = {"type": "Polygon", "coordinates": [square]}
        found.append(feature(geometry if plane is None else geometry | {"plane": plane}))
    return collection(*found)


@pytest.mark.parametrize("axes", ["Z", "T", "pages"])
def test_a_page_has_the_features_of_its_plane(axes, tmp_path):
    """QuPath leaves out the plane of the first slice."""
    name = "t" if axes == "T" else "z"
    planes = [None, *({"c": -1, "z": 0, "t": 0} | {name: n} for n in (0, 1, 2))]
    files.write_json(tmp_path / "shapes" / "a.geojson", features_on(*planes))
    stack(tmp_path, axes, 3, **({"metadata": None} if axes == "pages" else {}))
    found = objects_by_page(GeoJsonDataset, tmp_path, 3, "shapes")
    assert found == ([[10, 11], [12], [13]], {problems.OTHER_PAGE: 3})


@pytest.mark.parametrize("plane", [None, {}, "first", {"z": "first"}, {"c": 1}])
def test_features_without_a_plane_are_on_every_page(plane, tmp_path):
    files.write_json(tmp_path / "shapes" / "a.geojson", features_on(plane))
    stack(tmp_path, "Z", 3)
    assert objects_by_page(GeoJsonDataset, tmp_path, 3, "shapes") == ([[10]] * 3, {})


def test_a_file_of_one_image_has_one_page(tmp_path):
    dataset = geojson(tmp_path, features_on({"c": -1, "z": 0, "t": 0}))
    dataset = GeoJsonDataset(page=0)
    dataset.load(tmp_path / "shapes", tmp_path / "images")
    assert dataset.problems.counts == {} and len(dataset.image_info[0]["outlines"]) == 1
