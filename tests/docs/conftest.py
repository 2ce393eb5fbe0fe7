"""The files that the code blocks of the documentation read."""

import json
import math
import struct
import zipfile
from pathlib import Path

import annotation_files as files
import doc_pages as pages
import numpy as np
import pytest

from mrcnn.checkpoints import downloads
from mrcnn.config import TorchvisionConfig
from mrcnn.inference.video import VideoWriter

IMAGE_COUNT = 5


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder like the root of a clone, with the annotations of docs/train-your-own.md and leaves/."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))  # converted weights
    Path("samples").symlink_to(pages.ROOT / "samples")
    coco = {"images": [], "annotations": [], "categories": files.coco_content()["categories"]}
    via = {}
    with zipfile.ZipFile("cells.zip", "w") as archive:
        for index in range(IMAGE_COUNT):
            name = f"{index}.png"
            for folder in ("coco/images", "via", "labelme", "yolo/images/train", "leaves/images"):
                files.write_picture(Path(folder, name), files.picture(seed=index))
            files.write_picture(Path("bowl", str(index), "images", name), files.picture(seed=index))
            files.write_picture(Path("bowl", str(index), "masks", "1.png"), files.masks()[0].astype(np.uint8))
            labels = files.write_picture(Path("leaves/labels", name), files.masks()[0].astype(np.uint8))
            archive.write(f"leaves/images/{name}", f"images/{name}")
            archive.write(labels, f"labels/{name}")
            one = files.coco_content(name)
            coco["images"].append(one["images"][0] | {"id": index})
            coco["annotations"] += [record | {"image_id": index} for record in one["annotations"]]
            via |= files.via_content([files.via_region("leaf")], name)
            files.write_json(Path("labelme", f"{index}.json"), files.labelme_content(image=name))
            text = Path("yolo/labels/train", f"{index}.txt")
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text(files.yolo_line(0, "leaf"))
    files.write_json(Path("coco/annotations.json"), coco)
    files.write_json(Path("via/via_region_data.json"), via)
    Path("yolo/data.yaml").write_text("names: [leaf]\n")
    with VideoWriter("clip.mp4", 5) as writer:
        writer.write(files.picture())
    return tmp_path


@pytest.fixture
def published_weights(tmp_path, monkeypatch):
    """Weights made from a seed in place of torchvision's, which are a large download; and small images."""

    def download(name):
        keys = json.loads((pages.ROOT / "tests/checkpoints/torchvision_keys.json").read_text())[name]
        return str(write_safetensors(tmp_path / f"{name}.safetensors", keys))

    monkeypatch.setattr(downloads, "download_trained_weights", download)
    monkeypatch.setattr(TorchvisionConfig, "IMAGE_MIN_DIM", 128)
    monkeypatch.setattr(TorchvisionConfig, "IMAGE_MAX_DIM", 160)


def write_safetensors(path, shapes):
    """A .safetensors file of random weights that keep the scale of what goes through a network."""
    rng = np.random.default_rng(0)
    header, start = {}, 0
    for key, shape in shapes.items():
        end = start + 4 * math.prod(shape)
        header[key] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for key, shape in shapes.items():
            fan_in = max(math.prod(shape[1:]), 1)
            values = rng.standard_normal(shape, np.float32) * math.sqrt(1 / fan_in)
            if len(shape) == 1:  # norms and biases
                values = np.full(shape, 0.0 if key.endswith(("bias", "mean")) else 1.0, np.float32)
            file.write(values.tobytes())
    return path
