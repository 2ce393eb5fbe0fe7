"""Build any batch of a dataset from its epoch and index: which images, in which order, with replacements."""

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from mrcnn.data.augmentation import Augmentation
from mrcnn.data.augmentation import check as check_augmentation
from mrcnn.data.image_errors import ImageFailures
from mrcnn.data.samples import Sample, build_sample, stack
from mrcnn.geometry.anchors import AnchorCache
from mrcnn.typing import Boxes

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.dataset import Dataset

# The arrays of a batch.
INPUT_DTYPES = {
    "input_image": "float32",
    "input_image_meta": "float32",
    "input_rpn_match": "int32",
    "input_rpn_bbox": "float32",
    "input_gt_class_ids": "int32",
    "input_gt_boxes": "float32",
    "input_gt_masks": "bool",
}

# Images to try before a small dataset counts as unusable. Random crops or augmentation may miss the only
# object several times.
MIN_ATTEMPTS = 50

# The uses of random numbers. Each has its own stream.
ORDER, REPLACEMENT, DRAW = 1, 2, 3

Batch: TypeAlias = dict[str, np.ndarray]


class BatchBuilder:
    """Builder of any batch of a dataset. A batch depends only on the seed, the epoch and the index.

    It does not depend on the thread or process that builds it. `failures` lists the images that this copy of
    the builder could not load.

    Args:
        dataset: A prepared Dataset.
        config: Settings of images and targets.
        steps: Number of batches per epoch.
        batch_size: Number of images per batch, over all processes.
        seed: Determines order, replacements and augmentation.
        anchors: See `generator.DataGenerator`, also for the arguments below.
        shuffle: Whether every pass over the data has a different order.
        augment: Whether to mirror half of the images. Deprecated.
        augmentation: One of the kinds in `mrcnn.data.augmentation`, or None.
        no_augmentation_sources: Sources whose images are not augmented.
        part: (index, number of parts) of the part of each batch that this process builds.
    """

    def __init__(
        self,
        dataset: "Dataset",
        config: "Config",
        *,
        steps: int,
        batch_size: int,
        seed: int,
        anchors: Boxes | None = None,
        shuffle: bool = True,
        augment: bool = False,
        augmentation: Augmentation | None = None,
        no_augmentation_sources: Sequence[str] | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        check_augmentation(augmentation, dataset)
        self.dataset = dataset
        self.config = config
        self.steps = steps
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.augment = augment
        self.augmentation = augmentation
        self.no_augmentation_sources = checked_sources(no_augmentation_sources)
        self.part = part
        self.failures = ImageFailures(dataset, config.MAX_IMAGE_ERRORS)
        self._anchors = None if config.RPN_TARGETS_IN_GRAPH else AnchorCache(config, anchors)
        self._without_objects: set[int] = set()
        self._shuffled_pass: tuple[int, np.ndarray] = (-1, np.zeros(0, dtype=int))

    def batch(self, epoch: int, index: int) -> Batch:
        """Return the arrays of one batch, by the names of the network's inputs."""
        # Validation must see the same batches in every epoch.
        is_repeated = not (self.shuffle or self.augment or self.augmentation is not None)
        epoch = 0 if is_repeated else epoch
        part, parts = self.part
        size = self.batch_size // parts
        first = index * self.batch_size + part * size
        samples = [self._sample(epoch, first + row) for row in range(size)]
        arrays = stack(samples, self.config)
        # One dtype per input, because the network is compiled for each.
        return {name: array.astype(INPUT_DTYPES[name], copy=False) for name, array in arrays.items()}

    def _sample(self, epoch: int, position: int) -> Sample:
        """Return the sample at a position of an epoch, from the first usable candidate."""
        for attempt, image_id in enumerate(self._candidates(epoch, position)):
            if image_id in self.failures.reasons or image_id in self._without_objects:
                continue
            sample = self._build(image_id, self._rng(DRAW, epoch, position, attempt))
            if sample is not None:
                return sample
        raise no_usable_image(self.dataset, self.failures)

    def _candidates(self, epoch: int, position: int) -> Iterator[int]:
        """Yield the image at a position of an epoch, then its possible replacements."""
        # With shuffling, passes continue across epochs: an epoch shorter than a pass would otherwise favor
        # some images.
        position_in_run = position + (epoch * self.steps * self.batch_size if self.shuffle else 0)
        yield self._image_id(position_in_run)
        others = self.dataset.image_ids
        if self.shuffle:
            others = self._rng(REPLACEMENT, epoch, position).permutation(others)
        else:
            others = np.roll(others, -position_in_run - 1)
        yield from map(int, itertools.islice(itertools.cycle(others), max_attempts(self.dataset)))

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *key])

    def _image_id(self, position: int) -> int:
        """Return the image at a position of the endless sequence of passes over the data."""
        image_ids = self.dataset.image_ids
        pass_number, index = divmod(position, len(image_ids))
        if not self.shuffle:
            return int(image_ids[index])
        known, order = self._shuffled_pass
        if known != pass_number:
            order = self._rng(ORDER, pass_number).permutation(image_ids)
            self._shuffled_pass = (pass_number, order)
        return int(order[index])

    def _build(self, image_id: int, rng: np.random.Generator) -> Sample | None:
        sample = None
        with self.failures.tolerate(image_id):
            sample = build_sample(
                self.dataset,
                self.config,
                image_id,
                anchors=self._anchors,
                augment=self.augment,
                augmentation=self._augmentation_of(image_id),
                keep_empty=trains_when_empty(self.dataset, self.config, image_id),
                rng=rng,
            )
            # A random crop or augmentation may show an object the next time.
            is_cropped = self.config.IMAGE_RESIZE_MODE == "crop"
            if sample is None and not (is_cropped or self.augmentation is not None):
                self._without_objects.add(image_id)
        return sample

    def _augmentation_of(self, image_id: int) -> Augmentation | None:
        source = self.dataset.image_info[image_id]["source"]
        return None if source in self.no_augmentation_sources else self.augmentation


def checked_sources(sources: Sequence[str] | None) -> tuple[str, ...]:
    """Return the argument `no_augmentation_sources` as a tuple. Raises ValueError for a single string."""
    if isinstance(sources, str):
        raise ValueError(
            f"`no_augmentation_sources` must be a list of sources. Received: {sources!r}. Pass [{sources!r}]."
        )
    return tuple(sources or ())


def trains_when_empty(dataset: "Dataset", config: "Config", image_id: int) -> bool:
    """Return whether an image becomes a sample even if it shows no object; see TRAIN_ON_EMPTY_IMAGES."""
    if config.TRAIN_ON_EMPTY_IMAGES is None:
        return dataset.is_listed_as_empty(image_id)
    return config.TRAIN_ON_EMPTY_IMAGES


def check_has_images(dataset: "Dataset", config: "Config") -> None:
    """Raise ValueError if the dataset has no images, or only images that are listed as empty."""
    count = len(dataset.image_ids)
    if count == 0:
        raise ValueError("The dataset has no images. Call add_image for each image, then prepare().")
    if config.TRAIN_ON_EMPTY_IMAGES is None and all(map(dataset.is_listed_as_empty, dataset.image_ids)):
        raise ValueError(
            f"The annotations list all {count} images of the dataset as images without objects. Check "
            "that the annotations belong to these images. To train on backgrounds only, set "
            "TRAIN_ON_EMPTY_IMAGES = True."
        )


def max_attempts(dataset: "Dataset") -> int:
    """Return the number of images to try in a row before the dataset counts as unusable."""
    return max(len(dataset.image_ids), MIN_ATTEMPTS)


def no_usable_image(dataset: "Dataset", failures: ImageFailures) -> ValueError:
    """Return the error for a dataset without an image to train on."""
    return ValueError(
        f"None of the dataset's {len(dataset.image_ids)} images has an object. Check load_mask, or set "
        "TRAIN_ON_EMPTY_IMAGES = True to train on backgrounds. Images that could not be loaded: "
        f"{failures.listing() or 'none'}"
    )
