"""Damage small data sets of every annotation format, and read them.

Run as a program, so that a case that kills the process cannot kill the test run:

    python tests/fuzz/annotation_cases.py FORMAT FIRST LAST

Each case has a seed of its own, FORMAT and its number. A line is printed for every case that is neither read
nor refused clearly, and one with the counts at the end.
"""

import base64
import contextlib
import io
import json
import logging
import os
import random
import resource
import shutil
import signal
import struct
import sys
import tempfile
import traceback
import zipfile
import zlib
from pathlib import Path

import numpy as np
import PIL.Image
import tifffile

from mrcnn import formats
from mrcnn.errors import DataError
from mrcnn.evaluation.coco import checked_annotation
from mrcnn.formats.predictions import write_predictions
from mrcnn.geometry import rle
from mrcnn.geometry.mask_crops import MaskCrops
from mrcnn.results import Detections

HEIGHT, WIDTH = 24, 32
SECONDS = 20
MEMORY = 4 << 30
NAN, INF = float("nan"), float("inf")


class HangError(BaseException):
    """A case takes too long."""


# --- Whole data sets, as files in memory ---


def image(seed, height=HEIGHT, width=WIDTH):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def encoded(pixels, kind="PNG", **options):
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, kind, **options)
    return file.getvalue()


def blob(top=4, left=5, size=8):
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[top : top + size, left : left + size] = 1
    return mask


def text(content):
    return json.dumps(content).encode()


def images(folder=""):
    return {f"{folder}im{n}.png": encoded(image(n)) for n in range(3)}


SQUARE = [4, 4, 20, 4, 20, 20, 4, 20]


def coco_files():
    counts = rle.encode_masks(blob()[..., np.newaxis].astype(bool))[0]["counts"]
    size = [HEIGHT, WIDTH]
    segmentations = [
        [SQUARE],
        [[2, 2, 9, 2, 9, 9], SQUARE],
        {"size": size, "counts": counts},
        {"size": size, "counts": [100, 10, 14, 10, HEIGHT * WIDTH - 134]},
        SQUARE,
    ]
    annotations = [
        {
            "id": number,
            "image_id": number % 3,
            "category_id": 1 + 2 * (number % 2),
            "segmentation": segmentations[number % 5],
            "area": 100,
            "bbox": [4, 4, 16, 16],
            "iscrowd": int(number == 3),
        }
        for number in range(7)
    ]
    records = [{"id": n, "file_name": f"im{n}.png", "height": HEIGHT, "width": WIDTH} for n in range(3)]
    categories = [{"id": 1, "name": "leaf"}, {"id": 3, "name": "nut"}]
    content = {"images": records, "annotations": annotations, "categories": categories}
    return {"a.json": text(content), **images()}


def via_files():
    shapes = [
        {"name": "polygon", "all_points_x": SQUARE[::2], "all_points_y": SQUARE[1::2]},
        {"name": "rect", "x": 3, "y": 4, "width": 9, "height": 7},
        {"name": "circle", "cx": 12, "cy": 12, "r": 5},
        {"name": "ellipse", "cx": 14, "cy": 12, "rx": 8, "ry": 4, "theta": 0.3},
        {"name": "polyline", "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 9]},
    ]
    regions = [
        {"shape_attributes": shape, "region_attributes": {"kind": ("leaf", "nut")[n % 2]}}
        for n, shape in enumerate(shapes)
    ]
    entries = {
        f"im{n}.png1": {"filename": f"im{n}.png", "size": 1, "regions": regions, "file_attributes": {}}
        for n in range(2)
    }
    numbered = {str(n): region for n, region in enumerate(regions)}
    entries["im2.png1"] = {"filename": "im2.png", "regions": numbered}
    return {"a.json": text({"_via_settings": {}, "_via_img_metadata": entries}), **images()}


def labelme_files():
    mask = base64.b64encode(encoded(blob()[4:12, 5:13] * 255)).decode()
    shapes = [
        {"label": "leaf", "points": [[4, 4], [20, 4], [20, 20]], "shape_type": "polygon", "group_id": 1},
        {"label": "leaf", "points": [[22, 4], [28, 9]], "shape_type": "rectangle", "group_id": 1},
        {"label": "nut", "points": [[12, 12], [16, 12]], "shape_type": "circle", "group_id": None},
        {"label": "nut", "points": [[5, 4], [12, 11]], "shape_type": "mask", "mask": mask},
    ]
    files = {}
    for n in range(3):
        content = {"imagePath": f"im{n}.png", "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": shapes}
        if n == 2:
            content |= {"imagePath": "none.png", "imageData": base64.b64encode(encoded(image(2))).decode()}
        files[f"im{n}.json"] = text(content)
    return files | images()


def yolo_files():
    lines = "0 0.1 0.1 0.6 0.1 0.6 0.6\n1 0.2 0.2 0.9 0.2 0.9 0.9 0.2 0.9\n"
    labels = {f"labels/im{n}.txt": lines.encode() for n in range(2)} | {"labels/im2.txt": b""}
    return {"data.yaml": b"names:\n  0: leaf\n  1: nut\nnc: 2\n", **labels, **images("images/")}


def label_files():
    labels = blob() + 2 * blob(13, 15)
    files = {f"labels/im{n}.png": encoded(labels) for n in range(2)}
    file = io.BytesIO()
    tifffile.imwrite(file, labels.astype(np.uint16) * 1000)
    return files | {"labels/im2.tif": file.getvalue()} | images("images/")


def zip_files():
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in label_files().items():
            archive.writestr(name, content)
    return {"all.zip": file.getvalue()}


def mask_files():
    files = {}
    for n in range(2):
        files[f"x{n}/images/x{n}.png"] = encoded(image(n))
        for k in range(3):
            files[f"x{n}/masks/{k}.png"] = encoded(blob(2 + 4 * k) * 255)
    return files


# --- Reading ---


def written_files():
    """Objects with holes and parts for the writers of GeoJSON and RoIs."""
    masks = np.stack([blob(), blob(10, 18, 12), blob(2, 20, 4) | blob(16, 3, 5)], axis=-1).astype(bool)
    masks[13:17, 21:25, 1] = False
    crops = MaskCrops.cut(masks)
    return Detections(crops.boxes, np.array([1, 2, 1]), None, crops, class_names=["BG", "leaf", "nut"])


def geojson_files():
    content = written_files().to_geojson()
    shapes = {f"shapes/im{n}.geojson": text(content) for n in range(2)}
    return shapes | {"shapes/im2.json": text(content["features"])} | images("images/")


def imagej_files():
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for n in range(2):
            files[f"rois/im{n}.zip"] = written_files().save(Path(folder, f"{n}.zip")).read_bytes()
    with zipfile.ZipFile(io.BytesIO(files["rois/im0.zip"])) as archive:
        files["rois/im2.roi"] = archive.read(archive.namelist()[1])
    return files | images("images/")


def load_geojson(folder):
    dataset = formats.GeoJsonDataset()
    dataset.load(folder / "shapes", folder / "images")
    return dataset


def load_imagej(folder):
    dataset = formats.ImageJDataset()
    dataset.load(folder / "rois", folder / "images", ["leaf", "nut"])
    return dataset


def load_coco(folder):
    dataset = formats.CocoDataset()
    dataset.load(folder / "a.json")
    return dataset


def load_via(folder):
    dataset = formats.ViaDataset()
    dataset.load(folder / "a.json", class_attribute="kind", keep_empty=True)
    return dataset


def load_labelme(folder):
    dataset = formats.LabelMeDataset()
    dataset.load(folder, keep_empty=True)
    return dataset


def load_yolo(folder):
    dataset = formats.YoloDataset()
    dataset.load(folder / "images", folder / "data.yaml")
    return dataset


def load_labels(folder):
    dataset = formats.LabelImageDataset()
    dataset.load(folder)
    return dataset


def load_zip(folder):
    dataset = formats.LabelImageDataset()
    dataset.load(folder / "all.zip")
    return dataset


def load_masks(folder):
    dataset = formats.MaskFileDataset()
    dataset.load(folder)
    return dataset


def detect_one(batch):
    height, width = batch[0].shape[:2]
    masks = np.zeros((height, width, 1), bool)
    masks[: max(1, height // 2)] = True
    box = np.array([[0, 0, max(1, height // 2), width]])
    return [{"rois": box, "class_ids": np.array([1]), "scores": np.array([0.9]), "masks": masks}]


def load_predictions(folder):
    """Write predictions of all images of a folder, and read them."""
    output = folder / "out"
    with contextlib.redirect_stdout(io.StringIO()):
        counts = write_predictions(detect_one, folder, output, {1: "thing"}, verbose=0)
    assert len(json.loads((output / "detections.json").read_text())) == len(counts)
    assert len((output / "counts.csv").read_text().splitlines()) == len(counts) + 1
    if len(counts) < 3:
        raise DataError("left out and logged", file=folder)
    dataset = formats.CocoDataset()
    dataset.load(output / "annotations.json", folder)
    assert len(dataset.image_info) == len(counts)
    return dataset


FORMATS = {
    "coco": (coco_files, load_coco),
    "via": (via_files, load_via),
    "labelme": (labelme_files, load_labelme),
    "yolo": (yolo_files, load_yolo),
    "label images": (label_files, load_labels),
    "zip": (zip_files, load_zip),
    "mask files": (mask_files, load_masks),
    "geojson": (geojson_files, load_geojson),
    "imagej": (imagej_files, load_imagej),
    "predictions": (images, load_predictions),
}


def check(dataset):
    """Use every image as training and evaluation do. Return the number of images that are refused clearly."""
    dataset.prepare()
    refused = 0
    for image_id in range(len(dataset.image_info)):
        try:
            size = dataset.image_size(image_id)
            masks, class_ids = dataset.load_mask(image_id)
            pixels = dataset.load_image(image_id)
        except DataError as error:
            assert error.file is not None, f"names no file: {error}"
            refused += 1
            continue
        assert masks.dtype == bool and masks.shape == (*size, len(class_ids))
        assert pixels.shape == (*size, 3)
        assert masks.any(axis=(0, 1)).all()
        assert all(0 < abs(class_id) < dataset.num_classes for class_id in class_ids)
        # Memory that a decoder did not fill differs from call to call.
        assert np.array_equal(masks, dataset.load_mask(image_id)[0])
        assert isinstance(dataset.is_listed_as_empty(image_id), bool)
        if hasattr(dataset, "coco_annotations"):
            records = dataset.coco_annotations(image_id)
            assert len([checked_annotation(record, size) for record in records]) == len(class_ids)
    return refused


# --- Damage ---

NASTY = (
    *(None, True, False, 0, -1, 1, 2, 3, 7, 24, 32, 2**31, 2**63, 10**30, 10**400, 0.5, -0.0, 1e-300),
    *(1e9, 5e7, 1e12, 1e300, -1e300, NAN, INF, -INF, "", "x", "leaf", "\ud800", "a\0b", "im0.png", "NaN"),
    *(
        "x" * 5000,
        "../../../etc/passwd",
        "/etc/passwd",
        "/dev/zero",
        "C:\\x\\im0.png",
        ".\\im1.png",
        "%s%d{}",
    ),
    *([], [[]], [[[[]]]], {}, {"a": {}}, [1], [None] * 3, [NAN, 1], [1, 2], [[1, 2], [3, 4], [9, 9]]),
    *("counts", "polygon", "mask", [0] * 1000, {"size": [60000, 60000], "counts": [10]}, list(range(999))),
)


def paths_in(value, path=()):
    """Paths of all values in a JSON document."""
    yield path
    children = (
        value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    )
    for key, child in children:
        yield from paths_in(child, (*path, key))


def damage_json(content, rng):
    """Change up to three random places of a JSON document."""
    document = json.loads(content)
    for _ in range(rng.choice((1, 1, 2, 3))):
        paths = [path for path in paths_in(document) if path]
        if not paths:
            break
        path = rng.choice(paths)
        parent = document
        for key in path[:-1]:
            parent = parent[key]
        key, action = path[-1], rng.randrange(8)
        if action <= 3:
            parent[key] = rng.choice(NASTY)
        elif action == 4:
            del parent[key]
        elif action == 5:
            other = document
            for step in rng.choice(paths):
                other = other[step]
            parent[key] = json.loads(json.dumps(other))
        elif isinstance(parent, list):
            parent.insert(key, json.loads(json.dumps(rng.choice((parent[key], rng.choice(NASTY))))))
        elif isinstance(parent[key], (int, float)):
            parent[key] = parent[key] * rng.choice((-1, 0.5, 10, 1e6, 1e15))
        else:
            parent[rng.choice(("size", "counts", "id", "points", "mask", "name"))] = parent[key]
    return json.dumps(document).encode()


def damage_bytes(content, rng):
    """Flip, cut, repeat or replace a part of a file."""
    data = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 5))):
        start = rng.randrange(len(data) + 1)
        part = slice(start, start + rng.choice((1, 1, 4, 40)))
        action = rng.randrange(6)
        if action == 0:
            data[part] = bytes(rng.randrange(256) for _ in data[part])
        elif action == 1:
            del data[part]
        elif action == 2:
            data[start:start] = data[part] * rng.choice((1, 3, 50))
        elif action == 3:
            data = data[:start]
        elif action == 4:
            data[part] = rng.choice((b"", b"\xff\xfe", b"nan", b"1e999", b"[", b"\n", b"\0\0\0\0", b"-9e9"))
        else:
            data[start:start] = rng.choice(
                (b"[" * 200_000, b"\xef\xbb\xbf", b"{", b" 5e7 5e7", b"&a ", b"*a ")
            )
    return bytes(data)


def bomb():
    """A PNG file of a few bytes that states 40000 x 40000 pixels."""
    data = bytearray(encoded(image(0)))
    data[16:24] = struct.pack(">II", 40000, 40000)
    data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
    return bytes(data)


def odd_images():
    """Images of other sizes, modes and kinds."""
    gray, color = image(5)[..., 0], image(5)
    yield encoded(image(6, 10, 11))
    yield encoded(gray)
    yield encoded(np.dstack([color, gray]))
    yield encoded(gray > 99)
    yield encoded(gray.astype(np.uint16) * 200)
    yield encoded(color, "JPEG")
    yield encoded(gray, "JPEG")
    yield encoded(color, "WEBP")
    yield encoded(color, "GIF", save_all=True, append_images=[PIL.Image.fromarray(gray)])
    file = io.BytesIO()
    PIL.Image.fromarray(color).convert("CMYK").save(file, "JPEG")
    yield file.getvalue()
    exif = PIL.Image.Exif()
    exif[274] = 6
    yield encoded(color, "JPEG", exif=exif)
    for pixels in (
        gray.astype(np.float32),
        gray.astype(np.int64) - 99,
        np.stack([gray] * 3),
        color.astype("u2"),
    ):
        file = io.BytesIO()
        tifffile.imwrite(file, pixels, photometric="minisblack")
        yield file.getvalue()
    yield bomb()
    yield b""
    yield b"<html>404</html>"


ODD_IMAGES = list(odd_images())


def damage_files(files, folder, rng):
    """Write the files to a folder, one of them missing, strange, doubled or not a file at all."""
    name = rng.choice(sorted(files))
    is_image = name.endswith((".png", ".tif"))
    action = rng.randrange(7 if is_image else 3)
    path = folder / name
    if action == 0:
        files = {other: content for other, content in files.items() if other != name}
        if rng.random() < 0.7:
            path.parent.mkdir(parents=True, exist_ok=True)
            make = (lambda: os.mkfifo(path), path.mkdir, lambda: path.symlink_to("/dev/zero"))
            rng.choice((*make, lambda: path.symlink_to(path.name)))()
    elif action == 1:
        files = files | {name: files[rng.choice(sorted(files))]}
    elif action == 2:
        files = files | {name: damage_bytes(files[name], rng)}
    elif action == 3:
        files = files | {
            name.rsplit(".", 1)[0] + rng.choice((".jpg", ".PNG", ".tiff")): rng.choice(ODD_IMAGES)
        }
    else:
        files = files | {name: rng.choice(ODD_IMAGES)}
    return files


def damage_zip(content, rng):
    """Change entries of the archive, its bytes, or its stated sizes."""
    if rng.random() < 0.5:
        return damage_bytes(content, rng)
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(members))
    members[name] = rng.choice((*ODD_IMAGES, damage_bytes(members[name], rng), bytes(1 << 22)))
    extra = rng.choice(("../../x.png", "/images/x.png", "images\\y.png", "images/im0.tif", "images/.png"))
    members[extra] = rng.choice(ODD_IMAGES)
    file = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    with zipfile.ZipFile(file, "w", method) as archive:
        for member, data in members.items():
            archive.writestr(member, data)
    data = bytearray(file.getvalue())
    if rng.random() < 0.3:  # the flags or the method of a member
        place = data.rfind(b"PK\x01\x02") + rng.choice((8, 10, 24))
        data[place] ^= rng.choice((1, 9, 255))
    return bytes(data)


DOCUMENTS = (".json", ".geojson", ".txt", ".yaml", ".zip", ".roi")


def damaged(files, folder, rng):
    """Return the files of a case."""
    documents = [name for name in sorted(files) if name.endswith(DOCUMENTS)]
    if documents and rng.random() < 0.75:
        name = rng.choice(documents)
        if name.endswith(".zip"):
            return files | {name: damage_zip(files[name], rng)}
        with_structure = name.endswith("json") and rng.random() < 0.85
        return files | {name: (damage_json if with_structure else damage_bytes)(files[name], rng)}
    return damage_files(files, folder, rng)


# --- Running ---


def run_case(kind, number):
    """Return "ok", "clear" (an error of ours, or counted problems) or the trace of anything else."""
    make, load = FORMATS[kind]
    rng = random.Random(f"{kind} {number}")
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    signal.alarm(SECONDS)
    try:
        for name, content in damaged(make(), folder, rng).items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        dataset = load(folder)
        refused = check(dataset)
        return "clear" if refused or dataset.problems.counts else "ok"
    except DataError as error:
        return "clear" if error.file is not None else f"names no file: {error}"
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
        shutil.rmtree(folder, ignore_errors=True)


def hang(*_):
    raise HangError


def main(kind, first, last):
    logging.disable(logging.CRITICAL)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    signal.signal(signal.SIGALRM, hang)
    counts = {"ok": 0, "clear": 0, "else": 0}
    for number in range(first, last):
        print(json.dumps({"begins": number}), flush=True)
        outcome = run_case(kind, number)
        counts[outcome if outcome in counts else "else"] += 1
        if outcome not in counts:
            print(json.dumps({"case": f"{kind} {number}", "outcome": outcome}), flush=True)
    print(json.dumps({"counts": counts}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
