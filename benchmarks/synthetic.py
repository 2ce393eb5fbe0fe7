"""Pictures and a dataset made of random numbers: nothing is downloaded, no speed depends on the content."""

from pathlib import Path

import numpy as np
import skimage.io

from mrcnn.dataset import Dataset


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """A picture of random blocks with some noise, uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 200, (-(-height // 32), -(-width // 32), 3))
    image = blocks.repeat(32, axis=0).repeat(32, axis=1)[:height, :width]
    return (image + rng.integers(0, 56, (height, width, 3))).astype(np.uint8)


def ellipses(height: int, width: int, count: int, seed: int) -> np.ndarray:
    """Masks bool [height, width, count] of ellipses, their diameters an eighth to a quarter of the sides."""
    rng = np.random.default_rng(seed)
    radii = rng.uniform(1 / 16, 1 / 8, (count, 2)) * (height, width)
    centres = rng.uniform(radii, np.array([height, width]) - radii)
    rows, columns = np.ogrid[:height, :width]
    distance = [
        ((rows - y) / ry) ** 2 + ((columns - x) / rx) ** 2
        for (y, x), (ry, rx) in zip(centres, radii, strict=True)
    ]
    return np.stack([values <= 1 for values in distance], axis=-1)


class SyntheticDataset(Dataset):
    """Pictures with ellipses, held in memory and prepared.

    count: pictures; instances: objects in each; classes: with background; folder: write the pictures there
    as JPEG and read them again each time, so that decoding counts.
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
        self.pictures = [picture(height, width, seed) for seed in range(count)]
        self.masks = [ellipses(height, width, instances, seed) for seed in range(count)]
        self.instance_classes = (np.arange(instances) % (classes - 1) + 1).astype(np.int32)
        self.from_files = folder is not None
        for index, image in enumerate(self.pictures):
            path = None if folder is None else Path(folder) / f"picture_{index}.jpg"
            if path is not None:
                skimage.io.imsave(path, image, check_contrast=False)
            self.add_image("synthetic", index, path)
        self.prepare()

    def load_image(self, image_id: int) -> np.ndarray:
        """The picture uint8 [height, width, 3]."""
        return super().load_image(image_id) if self.from_files else self.pictures[image_id]

    def load_mask(self, image_id: int) -> tuple[np.ndarray, np.ndarray]:
        """Its masks bool [height, width, instances] and their class ids."""
        return self.masks[image_id], self.instance_classes
