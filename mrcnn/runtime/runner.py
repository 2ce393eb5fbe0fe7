"""Detect objects in images with an exported file."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from mrcnn.errors import InvalidDataError, MissingFileError
from mrcnn.geometry.boxes import norm_boxes
from mrcnn.inference.inputs import box_rules, image_list
from mrcnn.inference.large_images import DetectsLargeImages
from mrcnn.inference.outputs import check_mask_form, completed, place_in_image, with_mask_form
from mrcnn.inference.test_time_augmentation import detect_with_options
from mrcnn.results.detections import Detections
from mrcnn.runtime import engines
from mrcnn.runtime.inputs import prepare, takes
from mrcnn.runtime.metadata import Metadata
from mrcnn.typing import Image

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.tiles.detecting import TileModel


class Engine(Protocol):
    """A loaded file of one format."""

    def metadata(self) -> str | None:
        """Return the text that the file stores under `metadata.KEY`."""

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs for images [B, h, w, C]."""


# Suffix of a file -> its engine. A folder is a SavedModel.
ENGINES: dict[str, Callable[..., Engine]] = {
    ".onnx": engines.OnnxEngine,
    ".xml": engines.OpenVinoEngine,
    ".tflite": engines.LiteRtEngine,
    ".pt2": engines.TorchEngine,
    "": engines.SavedModelEngine,
}


class Runner(DetectsLargeImages):
    """An exported file, ready to detect.

    Args:
        engine: The loaded file.
        path: Its path.

    Attributes:
        metadata: The description of the file.
        config: The settings of the model. You can change TEST_TIME_FLIPS and MASK_NMS_THRESHOLD. The settings
            of the network are fixed in the file.
        class_names: Names of the classes, background first.
    """

    def __init__(self, engine: Engine, path: str | os.PathLike[str]) -> None:
        self.engine = engine
        self.path = Path(path)
        self.metadata = Metadata.from_json(engine.metadata(), os.fspath(path))
        self.config = self.metadata.read_config()
        self.class_names = self.metadata.class_names

    def detect(self, images: Image | Iterable[Image], masks: str = "full") -> list[Detections]:
        """Detect the objects in each image.

        Args:
            images: Any number of images of any sizes: arrays [height, width, channels], or gray
                [height, width]; uint8, uint16 or float. A single array is one image.
            masks: The form of the masks: "full", "cropped" or "rle", see
                `mrcnn.inference.outputs.masks_in_form`.

        Returns:
            One `Detections` per image, in order: a dict with the detections by descending score, `rois` int32
            [N, (y1, x1, y2, x2)] in pixels of the image, `class_ids` int32 [N], `scores` float32 [N], and
            `masks` bool [height, width, N] or in the other form.

        Raises:
            ValueError: If an image does not fit the settings.

        Warns:
            CappedWarning: If an image has DETECTION_MAX_INSTANCES detections, as more may be left out.
        """
        check_mask_form(masks)
        found = self._detect_with(image_list(images), self.config)
        results = [with_mask_form(detections, masks) for detections in found]
        return completed(results, self.class_names, self.config)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs of the file: boxes, class_ids, scores, masks and count.

        Args:
            images: [B, h, w, C], prepared as `detect` does: resized, not padded, mean not subtracted.
        """
        return self.engine.run(images)

    def _tile_model(self) -> "TileModel":
        from mrcnn.tiles.detecting import TileModel

        status = self.path.stat()
        fingerprint = [self.path.name, status.st_size, status.st_mtime_ns]
        return TileModel(
            self._detect_with,
            self.config,
            self.class_names,
            lambda: fingerprint,
            lambda size: takes(size, self.metadata, self.config),
        )

    def _detect_with(self, images: Sequence[Image], config: "Config") -> list[Detections]:
        def detect(views: Sequence[Image]) -> list[Detections]:
            return [self._detect_image(view, config) for view in views]

        return detect_with_options(detect, images, config)

    def _detect_image(self, image: Image, config: "Config") -> Detections:
        original, pixels, window = prepare(image, self.metadata, config)
        outputs = self.run(pixels[np.newaxis])
        count = int(outputs["count"][0])
        rules = box_rules(config)
        rows = np.zeros((count, 6), np.float32)
        rows[:, :4] = norm_boxes(outputs["boxes"][0, :count], pixels.shape[:2], rules["half_open"])
        rows[:, 4] = outputs["class_ids"][0, :count]
        rows[:, 5] = outputs["scores"][0, :count]
        rois, class_ids, scores, crops = place_in_image(
            rows,
            outputs["masks"][0],
            original_shape=original.shape,
            image_shape=pixels.shape,
            window=window,
            **rules,
        )
        return Detections(rois, class_ids, scores, crops)


def load(path: str | os.PathLike[str], **options: Any) -> Runner:
    """Load an exported file.

    Args:
        path: A file or folder that `MaskRCNN.export` wrote.
        options: Options of the format. "onnx": `threads`, `providers` (see ONNX Runtime). "openvino":
            `threads`, `device` ("CPU", "GPU", "AUTO"), `precision` ("f32", the default, or "bf16" or "f16",
            which are faster and less accurate). "litert" and "torch": `threads`.

    Raises:
        MissingFileError: If there is no such file.
        InvalidDataError: If it was not written by `MaskRCNN.export`.
        ImportError: If the package that runs the format is missing. The message names it.
    """
    path = Path(path)
    if not path.exists():
        raise MissingFileError("There is no such file or folder.", file=path)
    suffix = "" if path.is_dir() else path.suffix.lower()
    if suffix not in ENGINES or (suffix == "" and not path.is_dir()):
        known = ", ".join(name for name in ENGINES if name)
        raise InvalidDataError(
            f"An exported model is a file that ends in {known}, or the folder of a SavedModel.", file=path
        )
    return Runner(ENGINES[suffix](path, **options), path)
