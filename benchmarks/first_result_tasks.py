"""The programs of `benchmarks.first_result`, one task each, for any checkout of the package.

    python first_result_tasks.py ROOT TASK NETWORK SIDE COUNT SETTINGS

SETTINGS is a JSON object with fields of the Config. Only names that all checkouts have are used. The last
line of the output is the result as JSON.
"""

import json
import sys
import tempfile
import time

START = time.perf_counter(), time.process_time()
OWN = json.loads(sys.argv[6])  # the SETTINGS


class Clock:
    """Seconds of the wall and of the processor, phase by phase, from the start of the program."""

    def __init__(self):
        self.last, self.phases = START, {}

    def mark(self, phase):
        """End a phase."""
        now = time.perf_counter(), time.process_time()
        self.phases[f"{phase}_seconds"], self.phases[f"{phase}_cpu"] = (
            end - begin for end, begin in zip(now, self.last, strict=True)
        )
        self.last = now


def memory(peak=False):
    """Memory of this process in MB: now, or the largest until now."""
    name = "VmHWM:" if peak else "VmRSS:"
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith(name)) / 1000


def model(mode, network, side, **settings):
    """A model with random weights."""
    from mrcnn.config import Config, LightConfig
    from mrcnn.model import MaskRCNN

    base = LightConfig if network == "light" else Config
    sides = {"IMAGE_MIN_DIM": side, "IMAGE_MAX_DIM": side}
    backbone = {} if network == "light" else {"BACKBONE": network}
    own = type("Own", (base,), {"NAME": "first", "IMAGES_PER_GPU": 1, **sides, **backbone, **settings, **OWN})
    return MaskRCNN(mode, own(), tempfile.mkdtemp())


def detect(network, side, count):
    """From the start of the process to the first detections."""
    clock = Clock()
    import numpy as np

    import mrcnn.model  # noqa: F401

    clock.mark("import")
    settings = {"DETECTION_MIN_CONFIDENCE": 0, "DETECTION_MAX_INSTANCES": 20, "NUM_CLASSES": 81}
    network = model("inference", network, side, **settings)
    clock.mark("build")
    image = np.random.default_rng(0).integers(0, 255, (side, side, 3), dtype=np.uint8)
    for phase in ("first", "second"):
        network.detect([image])
        clock.mark(phase)
    return clock.phases


def torchvision(network, side, count):
    """The same with torchvision."""
    clock = Clock()
    import torch
    from torchvision.models import detection

    clock.mark("import")
    torch.manual_seed(0)
    options = {"num_classes": 81, "min_size": side, "max_size": side, "box_detections_per_img": 20}
    network = detection.maskrcnn_resnet50_fpn(
        weights=None, weights_backbone=None, box_score_thresh=0.0, **options
    ).eval()
    clock.mark("build")
    with torch.inference_mode():
        for phase in ("first", "second"):
            network([torch.rand(3, side, side)])
            clock.mark(phase)
    return clock.phases


def sizes(network, side, count):
    """A folder of 63 images of ten sizes, one by one; then images of `count` random sizes."""
    import numpy as np

    rng = np.random.default_rng(0)
    settings = {"IMAGE_RESIZE_MODE": "pad64", "IMAGE_MIN_DIM": None, "NUM_CLASSES": 2}
    network = model("inference", network, side, **settings)
    edges = np.arange(side // 2, side + 1, 64)
    ten = [(int(h), int(w)) for h in edges for w in edges][::2][:10]
    clock = Clock()

    def run(height, width):
        network.detect([rng.integers(0, 255, (height, width, 3), dtype=np.uint8)])

    clock.mark("start")
    for index in range(63):
        run(*ten[index % len(ten)])
    clock.mark("folder")
    before = memory()
    for _ in range(count):
        run(*rng.integers(side // 8, side, 2))
    clock.mark("random")
    grown = {"memory_per_size_kb": (memory() - before) * 1000 / count} if count else {}
    return {**clock.phases, "sizes": len(set(ten)), **grown}


def train(network, side, count):
    """The steps of a first training of four steps, and the memory that `count` more trainings keep."""
    import keras
    import numpy as np

    from mrcnn.utils import Dataset

    class Squares(Dataset):
        """Random images with one object each."""

        def load_image(self, image_id):
            return np.random.default_rng(image_id).integers(0, 255, (side, side, 3), dtype=np.uint8)

        def load_mask(self, image_id):
            mask = np.zeros((side, side, 1), bool)
            mask[side // 4 : side // 2, side // 4 : side // 2] = True
            return mask, np.array([1], np.int32)

    images = Squares()
    images.add_class("own", 1, "square")
    for index in range(4):
        images.add_image("own", index, path=None)
    images.prepare()
    settings = {"IMAGES_PER_GPU": 2, "NUM_CLASSES": 2, "STEPS_PER_EPOCH": 4}
    network = model("training", network, side, **settings)
    clock = Clock()

    class Steps(keras.callbacks.Callback):
        """Mark the steps of the first training."""

        def on_train_batch_end(self, batch, logs=None):
            clock.mark(f"step_{batch + 1}")

    clock.mark("start")
    network.train(images, None, 1e-4, 1, "all", custom_callbacks=[Steps()])
    phases, seen = clock.phases.copy(), [memory()]
    for index in range(count):
        network.train(images, None, 1e-4, index + 2, "all")
        seen.append(memory())
    grown = {"memory_per_training_mb": (seen[-1] - seen[1]) / (count - 1)} if count > 1 else {}
    return {**phases, **grown}


if __name__ == "__main__":
    root, task, network, side, count, _ = sys.argv[1:]
    sys.path.insert(0, root)
    result = {"detect": detect, "torchvision": torchvision, "sizes": sizes, "train": train}[task](
        network, int(side), int(count)
    )
    print(json.dumps({**result, "peak_mb": memory(peak=True)}), flush=True)
