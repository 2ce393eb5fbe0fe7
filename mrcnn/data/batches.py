"""Batches of a data set by epoch and number: which images, in which order, and what replaces a bad one."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mrcnn.data.image_errors import ImageFailures
from mrcnn.data.samples import Sample, build_sample, stack
from mrcnn.geometry.anchors import AnchorCache

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

# Tries to find an image with an object before a small dataset counts as empty: a random crop or
# augmentation may miss the only object several times.
LEAST_TRIES = 50

# What random numbers are for; each use has a stream of its own.
ORDER, REPLACEMENT, DRAW = 1, 2, 3

Batch = dict[str, np.ndarray]


class BatchBuilder:
    """Builds any batch of a data set from its epoch and number alone, in whatever thread or process.

    The arguments are those of `generator.DataGenerator`; steps counts the batches of an epoch. `failures`
    lists the images that could not be loaded, as this copy of the builder has met them.
    """

    def __init__(
        self,
        dataset: Any,
        config: Any,
        steps: int,
        batch_size: int,
        seed: int,
        anchors: np.ndarray | None = None,
        shuffle: bool = True,
        augment: bool = False,
        augmentation: Any = None,
        no_augmentation_sources: Sequence[str] = (),
        part: tuple[int, int] = (0, 1),
    ) -> None:
        self.dataset = dataset
        self.config = config
        self.steps = steps
        self.batch_size = batch_size
        self.seed = seed
        self.shuffle = shuffle
        self.augment = augment
        self.augmentation = augmentation
        self.no_augmentation_sources = tuple(no_augmentation_sources)
        self.part = part
        self.failures = ImageFailures(dataset, config.MAX_IMAGE_ERRORS)
        self._anchors = AnchorCache(config, anchors)
        self._without_objects: set[int] = set()
        self._pass: tuple[int, np.ndarray] = (-1, np.zeros(0, dtype=int))

    def batch(self, epoch: int, index: int) -> Batch:
        """The arrays of one batch, by the names of the network's inputs."""
        # Validation has to be comparable from epoch to epoch.
        repeats = not (self.shuffle or self.augment or self.augmentation is not None)
        epoch = 0 if repeats else epoch
        number, parts = self.part
        size = self.batch_size // parts
        first = index * self.batch_size + number * size
        samples = [self._sample(epoch, first + slot) for slot in range(size)]
        arrays = stack(samples, self.config)
        return {name: array.astype(INPUT_DTYPES[name], copy=False) for name, array in arrays.items()}

    def _sample(self, epoch: int, place: int) -> Sample:
        """The sample at one place of an epoch, made of the first candidate that is usable."""
        for attempt, image_id in enumerate(self._candidates(epoch, place)):
            if image_id in self.failures.reasons or image_id in self._without_objects:
                continue
            sample = self._build(image_id, self._rng(DRAW, epoch, place, attempt))
            if sample is not None:
                return sample
        raise nothing_usable(self.dataset, self.failures)

    def _candidates(self, epoch: int, place: int) -> Iterator[int]:
        """The image whose turn it is, then those that may replace it."""
        position = place + (epoch * self.steps * self.batch_size if self.shuffle else 0)
        yield self._image_id(position)
        others = self.dataset.image_ids
        if self.shuffle:
            others = self._rng(REPLACEMENT, epoch, place).permutation(others)
        else:
            others = np.roll(others, -position - 1)
        yield from map(int, itertools.islice(itertools.cycle(others), tries(self.dataset)))

    def _rng(self, *key: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, *key])

    def _image_id(self, position: int) -> int:
        """The image at a position of the endless row of passes over the data."""
        image_ids = self.dataset.image_ids
        number, place = divmod(position, len(image_ids))
        if not self.shuffle:
            return int(image_ids[place])
        known, order = self._pass
        if known != number:
            order = self._rng(ORDER, number).permutation(image_ids)
            self._pass = (number, order)
        return int(order[place])

    def _build(self, image_id: int, rng: np.random.Generator) -> Sample | None:
        sample = None
        with self.failures.watch(image_id):
            sample = build_sample(
                self.dataset,
                self.config,
                image_id,
                self._anchors,
                augment=self.augment,
                augmentation=self._augmentation_of(image_id),
                rpn_targets=not self.config.RPN_TARGETS_IN_GRAPH,
                rng=rng,
            )
            crops = self.config.IMAGE_RESIZE_MODE == "crop"
            if sample is None and not (crops or self.augmentation is not None):
                self._without_objects.add(image_id)
        return sample

    def _augmentation_of(self, image_id: int) -> Any:
        source = self.dataset.image_info[image_id]["source"]
        return None if source in self.no_augmentation_sources else self.augmentation


def tries(dataset: Any) -> int:
    """Images to try, one after the other, before the dataset counts as empty."""
    return max(len(dataset.image_ids), LEAST_TRIES)


def nothing_usable(dataset: Any, failures: ImageFailures) -> ValueError:
    """The error for a dataset of which no image can be trained on."""
    return ValueError(
        f"None of the dataset's {len(dataset.image_ids)} images has an object of a class. Check "
        f"load_mask. Images that could not be loaded: {failures.listing() or 'none'}"
    )
