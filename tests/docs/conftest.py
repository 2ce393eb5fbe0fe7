"""The files that the code blocks of the documentation read."""

import zipfile
from pathlib import Path

import annotation_files as files
import doc_pages as pages
import numpy as np
import pytest

from mrcnn.inference.video import VideoWriter

IMAGE_COUNT = 5


@pytest.fixture
def workplace(tmp_path, monkeypatch):
    """A folder like the root of a clone, with the annotations of docs/train-your-own.md and leaves/."""
    monkeypatch.chdir(tmp_path)
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
