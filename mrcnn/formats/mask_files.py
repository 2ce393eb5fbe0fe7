"""Folders with one mask file for each object, as in the 2018 Data Science Bowl."""

import os
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import PIL.Image

from mrcnn.formats import files, problems
from mrcnn.formats.base import FormatDataset, Instance, cropped


class MaskFileDataset(FormatDataset):
    """Pictures <name>/images/<name>.png with masks <name>/masks/*.png, one file for each object.

    Pixels that are not 0 are inside. image_info has `masks`, the paths of the mask files.
    """

    def load(
        self,
        root: str | os.PathLike,
        class_name: str = "object",
        images: str = "images",
        masks: str = "masks",
        only: Collection[str] | None = None,
        source: str = "masks",
    ) -> None:
        """Add the images of all folders below `root`.

        class_name: the class of all objects. images, masks: names of the two folders in each. only: names of
        folders to take, all by default. source: name of this source of ids.

        Raises FileNotFoundError if there is no such folder, ValueError if no image can be used. Single broken
        entries are left out, see `problems`.
        """
        root = Path(root)
        if not root.is_dir():
            raise FileNotFoundError(f"There is no folder {root}")
        self.add_class(source, 1, class_name)
        before = len(self.image_info)
        known = sorted(path.name for path in root.iterdir() if path.is_dir())
        for name in known if only is None else sorted(only):
            pictures = files.images_in(root, f"{name}/{images}") if (root / name / images).is_dir() else {}
            if not pictures:
                self.problems.add(problems.MISSING_IMAGE, str(root / name / images))
                continue
            has_masks = (root / name / masks).is_dir()
            paths = (
                [root / file for file in files.images_in(root, f"{name}/{masks}").values()]
                if has_masks
                else []
            )
            if not paths:
                self.problems.add(problems.MISSING_LABELS, str(root / name / masks))
            path = root / pictures.get(name, next(iter(pictures.values())))
            self._add_picture(source, name, path, masks=paths)
        self._finish(str(root), before)

    def load_instances(self, image_id: int) -> Iterator[Instance]:
        """The objects one by one, in the order of their files' names, each cropped to its box.

        A mask file that is broken, empty or of another size is left out and named in `problems`.
        """
        info, size = self.image_info[image_id], self.image_size(image_id)
        for path in info["masks"]:
            try:
                with PIL.Image.open(path) as picture:
                    mask = (
                        np.asarray(
                            picture.convert("L") if picture.mode not in ("1", "I", "I;16") else picture
                        )
                        > 0
                    )
            except (OSError, SyntaxError) as error:
                self.problems.add(problems.BROKEN_MASK, f"{path}: {error}")
                continue
            if mask.shape != size:
                self.problems.add(problems.MASK_SIZE, f"{path}: {mask.shape}, image {size}")
            elif not mask.any():
                self.problems.add(problems.NO_AREA, str(path))
            else:
                yield from cropped(mask, self.map_source_class_id(f"{info['source']}.1"))
