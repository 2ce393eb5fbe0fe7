"""Images and a dataset of random numbers. Nothing is downloaded, and no speed depends on the content."""

from pathlib import Path

import numpy as np
import skimage.io

from mrcnn.dataset import Dataset


def image(height: int, width: int, seed: int) -> np.ndarray:
    """Return an image of random blocks with some noise, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 200, (-(-height // 32), -(-width // 32), 3))
    smooth = blocks.repeat(32, axis=0).repeat(32, axis=1)[:height, :width]
    return (smooth + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)


def ellipses(height: int, width: int, count: int, seed: int) -> np.ndarray:
    """Return masks bool [height, width, count] of ellipses, an eighth to a quarter of the image wide."""
    rng = np.random.default_rng(seed)
    radii = rng.uniform(1 / 16, 1 / 8, (count, 2)) * (height, width)
    centers = rng.uniform(radii, np.array([height, width]) - radii)
    rows, columns = np.ogrid[:height, :width]
    distance = [
        ((rows - y) / ry) ** 2 + ((columns - x) / rx) ** 2
        for (y, x), (ry, rx) in zip(centers, radii, strict=True)
    ]
    return np.stack([values <= 1 for values in distance], axis=-1)


class SyntheticDataset(Dataset):
    """A prepared dataset of images with ellipses, held in memory.

    Args:
        count: Number of images.
        height, width: Size of each image in pixels.
        instances: Objects per image.
        classes: Number of classes including the background.
        folder: Write the images here as JPEG and read them each time, so that decoding counts. None: keep
            them in memory.
    """

    def __init__(
        self,
        count: int,
        height: int,
        width: int,
        instances: int,
        classes: int,
        folder: str | Path | None = None,
    ):
        super().__init__()
        for class_id in range(1, classes):
            self.add_class("synthetic", class_id, f"class {class_id}")
        self.images = [image(height, width, seed) for seed in range(count)]
        self.masks = [ellipses(height, width, instances, seed) for seed in range(count)]
        self.instance_classes = (np.arange(instances) % (classes - 1) + 1).astype(np.int32)
        self.from_files = folder is not None
        for index, values in enumerate(self.images):
            path = None if folder is None else Path(folder) / f"image_{index}.jpg"
            if path is not None:
                skimage.io.imsave(path, values, check_contrast=False)
            self.add_image("synthetic", index, path)
        self.prepare()

    def load_image(self, image_id: int) -> np.ndarray:
        """Return the image, uint8 [height, width, 3]."""
        return super().load_image(image_id) if self.from_files else self.images[image_id]

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the masks, bool [height, width, instances], and their class ids."""
        return self.masks[image_id], self.instance_classes
