"""The page "Train on your own images": its code runs as it stands there."""

import re
import zipfile
from pathlib import Path

import annotation_files as files
import numpy as np
import pytest

from mrcnn.inference.video import VideoWriter

PAGE = Path(__file__).resolve().parents[2] / "docs" / "train-your-own.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
READERS = [block for block in BLOCKS if "dataset.load(" in block]
AFTER_READING = BLOCKS[len(READERS) :]
FIRST_TO_BUILD_A_NETWORK = next(n for n, block in enumerate(AFTER_READING) if "MaskRCNN(" in block)
COUNT = 5


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The files that the page's code reads."""
    monkeypatch.chdir(tmp_path)
    content = {"images": [], "annotations": [], "categories": files.coco_content()["categories"]}
    via = {}
    with zipfile.ZipFile("cells.zip", "w") as archive:
        for number in range(COUNT):
            name = f"{number}.png"
            for folder in ("coco/images", "via", "labelme", "yolo/images/train", f"bowl/{number}/images"):
                files.write_picture(Path(folder, name), files.picture(seed=number))
            one = files.coco_content(name)
            content["images"].append(one["images"][0] | {"id": number})
            content["annotations"] += [record | {"image_id": number} for record in one["annotations"]]
            via |= files.via_content([files.via_region("leaf")], name)
            files.write_json(Path("labelme", f"{number}.json"), files.labelme_content(image=name))
            text = Path("yolo/labels/train", f"{number}.txt")
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text(files.yolo_line(0, "leaf"))
            mask = files.masks()[0].astype(np.uint8)
            labels = files.write_picture(Path("bowl", str(number), "masks", "1.png"), mask)
            archive.write(f"via/{name}", f"images/{name}")
            archive.write(labels, f"labels/{name}")
    files.write_json(Path("coco/annotations.json"), content)
    files.write_json(Path("via/via_region_data.json"), via)
    Path("yolo/data.yaml").write_text("names: [leaf]\n")


@pytest.mark.parametrize("block", READERS)
def test_each_format_is_read_and_divided(block, folders):
    names = {}
    exec(block + AFTER_READING[0], names)
    assert len(names["train"].image_info) == COUNT - 1 and len(names["val"].image_info) == 1
    assert names["dataset"].problems.counts == {}
    masks, class_ids = names["val"].load_mask(0)
    assert np.array_equal(masks[..., 0], files.masks()[0]) and class_ids[0] == 1


def test_counting_looking_and_settings(folders):
    names = {}
    exec(READERS[0] + "".join(AFTER_READING[:FIRST_TO_BUILD_A_NETWORK]), names)
    assert Path("dataset.png").exists() and Path("labels_3.png").exists()
    assert names["MyConfig"].NUM_CLASSES == 3
    names["MyConfig"]().validate()


@pytest.mark.slow
def test_the_whole_page(folders):
    with VideoWriter("clip.mp4", 5) as writer:
        writer.write(files.picture())
    names = {}
    for block in [READERS[0], *AFTER_READING]:
        exec(block.replace("epochs=10", "epochs=1"), names)
        if "MyConfig" in names:  # a few steps on small pictures
            names["MyConfig"].STEPS_PER_EPOCH = 2
            names["MyConfig"].IMAGE_MIN_DIM = names["MyConfig"].IMAGE_MAX_DIM = 128
    assert Path("differences.png").exists() and Path("found.mp4").exists()
