"""Pictures with two objects, and their annotations written in each format."""

import base64
import io
import json

import numpy as np
import PIL.Image

HEIGHT, WIDTH = 60, 90
CORNERS = {  # (x, y) from the upper left corner of the image
    "leaf": [(10, 8), (40, 8), (40, 30), (10, 30)],
    "nut": [(50, 20), (80, 20), (80, 50), (65, 35), (50, 50)],
}
EXIF_ORIENTATION = 274


def picture(height=HEIGHT, width=WIDTH, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def write_picture(path, pixels=None, orientation=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    image = PIL.Image.fromarray(picture() if pixels is None else pixels)
    exif = image.getexif()
    if orientation:
        exif[EXIF_ORIENTATION] = orientation
    image.save(path, exif=exif) if orientation else image.save(path)
    return path


def write_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def masks():
    """The two objects as bool [2, h, w]: pixels whose centres are inside."""
    leaf, nut = np.zeros((2, HEIGHT, WIDTH), bool)
    leaf[8:30, 10:40] = True
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    nut[:] = (columns > 50) & (columns < 80) & (rows > 20) & (rows < 50 - 15 + abs(columns - 65))
    return leaf, nut


def labels(dtype=np.uint8):
    """The two objects as a label image with a gap: values 3 and 7."""
    leaf, nut = masks()
    return (3 * leaf + 7 * nut).astype(dtype)


def flat(name):
    return [value for point in CORNERS[name] for value in point]


def coco_content(file_name="a.png", **first):
    """A file of one image with both objects; `first` changes the first annotation."""
    annotations = [
        {"id": 5, "image_id": 42, "category_id": 3, "iscrowd": 0, "segmentation": [flat("leaf")]} | first,
        {"id": 9, "image_id": 42, "category_id": 17, "iscrowd": 0, "segmentation": [flat("nut")]},
    ]
    return {
        "images": [{"id": 42, "file_name": file_name, "height": HEIGHT, "width": WIDTH}],
        "annotations": annotations,
        "categories": [{"id": 17, "name": "nut"}, {"id": 3, "name": "leaf"}],
    }


def via_region(name, label=None):
    x, y = ([value - 0.5 for value in values] for values in zip(*CORNERS[name], strict=True))
    shape = {"name": "polygon", "all_points_x": list(x), "all_points_y": list(y)}
    return {"shape_attributes": shape, "region_attributes": {"kind": label or name}}


def via_content(regions, file_name="a.png"):
    return {f"{file_name}123": {"filename": file_name, "size": 123, "regions": regions}}


def labelme_content(shapes=None, image="a.png", **fields):
    shapes = shapes or [
        {"label": name, "points": CORNERS[name], "shape_type": "polygon", "group_id": None}
        for name in CORNERS
    ]
    return {"imagePath": image, "imageHeight": HEIGHT, "imageWidth": WIDTH, "shapes": shapes, **fields}


def yolo_line(number, name):
    words = [f"{x / WIDTH:.6f} {y / HEIGHT:.6f}" for x, y in CORNERS[name]]
    return " ".join([str(number), *words])


def base64_png(array):
    buffer = io.BytesIO()
    PIL.Image.fromarray(array).save(buffer, "png")
    return base64.b64encode(buffer.getvalue()).decode()
