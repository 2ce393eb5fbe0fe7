"""Batches for training: DataGenerator for Keras, and data_generator for scripts of the Keras 2 library."""

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np

from mrcnn.data import batches
from mrcnn.data.augmentation import Augmentation
from mrcnn.data.batches import Batch, BatchBuilder
from mrcnn.data.image_errors import ImageFailures
from mrcnn.data.prefetch import Prefetcher
from mrcnn.data.processes import BatchProcesses
from mrcnn.data.samples import Sample, build_sample, stack
from mrcnn.geometry.anchors import AnchorCache
from mrcnn.typing import Boxes

if TYPE_CHECKING:
    from mrcnn.config import Config
    from mrcnn.dataset import Dataset


class DataGenerator(keras.utils.PyDataset):
    """Batches of a training or validation set, in a reproducible order.

    `generator[i]` is `(inputs,)`. `inputs` is a dict of the arrays in `batches.INPUT_DTYPES`, without
    `input_rpn_match` and `input_rpn_bbox` if RPN_TARGETS_IN_GRAPH. It depends only on the seed, the epoch and
    i, but not on the thread or process that builds it. `epoch` advances automatically, and you can set it.
    Without shuffling and augmentation all epochs are equal. Pass shuffle=False to `fit`, because Keras would
    otherwise request the batches in a different order.

    Images without an object are replaced, unless they train as background (TRAIN_ON_EMPTY_IMAGES): by the
    next image, or by a random one when shuffling. Images that cannot be loaded are replaced as well. Each is
    logged once and listed in `skipped`.

    Args:
        dataset: A prepared Dataset.
        config: Settings of images and targets, and defaults of the arguments below.
        anchors: [A, (y1, x1, y2, x2)], pixel anchors for images of config.IMAGE_SHAPE. None computes them.
            Anchors for other sizes are always computed.
        shuffle: Whether every pass over the data has a different order. Passes continue across epochs.
            Without shuffling, every epoch starts at the first image.
        augment: Mirror half of the images. Deprecated.
        augmentation: One of the kinds in `mrcnn.data.augmentation`, or None.
        batch_size: Images per batch, by default BATCH_SIZE.
        no_augmentation_sources: Sources whose images are not augmented.
        steps: Batches per epoch, by default STEPS_PER_EPOCH. "all" or None is one pass over the data, whose
            last batch is filled with the first images.
        seed: By default SEED, and if that is None, drawn from NumPy's global state.
        workers: Threads that build batches while Keras trains, by default LOADER_WORKERS. 0 builds them
            when they are requested.
        use_multiprocessing: Build batches in processes instead, by default LOADER_PROCESSES; see
            `processes.BatchProcesses`.
        max_queue_size: Maximum number of batches built in advance, by default workers + 1.
        part: (index, number of parts) of the equal part of each batch that this process builds, if several
            processes share a batch. All of them need the same seed.

    Raises:
        ValueError: If the numbers of classes differ, no image is usable, or a batch mixes image sizes.
        RuntimeError: If more than MAX_IMAGE_ERRORS images could not be loaded. The error names them.
    """

    def __init__(
        self,
        dataset: "Dataset",
        config: "Config",
        *,
        anchors: Boxes | None = None,
        shuffle: bool = True,
        augment: bool = False,
        augmentation: Augmentation | None = None,
        batch_size: int | None = None,
        no_augmentation_sources: Sequence[str] | None = None,
        steps: int | Literal["config", "all"] | None = "config",
        seed: int | None = None,
        workers: int | None = None,
        use_multiprocessing: bool | None = None,
        max_queue_size: int | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        workers = config.LOADER_WORKERS if workers is None else workers
        use_processes = config.LOADER_PROCESSES if use_multiprocessing is None else use_multiprocessing
        # Keras' own workers are not used: on JAX and PyTorch its threads start an epoch with batches left
        # over from the previous one, and its processes are forked.
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=max_queue_size or workers + 1)
        _check_classes(dataset, config)
        batches.check_has_images(dataset, config)
        self.dataset = dataset
        self.config = config
        self.batch_size = batch_size or config.BATCH_SIZE
        self.epoch = 0
        seed = config.SEED if seed is None else seed
        self._builder = BatchBuilder(
            dataset,
            config,
            steps=_number_of_steps(dataset, config, self.batch_size, steps),
            batch_size=self.batch_size,
            seed=int(np.random.randint(2**31)) if seed is None else seed,
            anchors=anchors,
            shuffle=shuffle,
            augment=augment,
            augmentation=augmentation,
            no_augmentation_sources=no_augmentation_sources,
            part=part,
        )
        self._threads = workers
        self._processes = BatchProcesses(self._builder, workers) if use_processes and workers else None
        self._prefetcher: Prefetcher[tuple[Batch]] | None = None
        self._is_in_epoch = False
        self._had_last_batch = False

    def __len__(self) -> int:
        return self._builder.steps

    @property
    def seed(self) -> int:
        """The seed of order and augmentation."""
        return self._builder.seed

    @property
    def skipped(self) -> dict[int, str]:
        """Images that could not be loaded so far: image id to error."""
        return dict(self._builder.failures.reasons)

    def on_epoch_begin(self) -> None:
        """Start building batches in advance. Keras calls this method."""
        self._is_in_epoch = True
        self._had_last_batch = False
        self._stop_prefetching()  # an error may have interrupted the previous epoch
        if self._threads:
            self._prefetcher = Prefetcher(self._batch, len(self), self._threads, self.max_queue_size)

    def on_epoch_end(self) -> None:
        """Count the epoch. Keras also calls this before training and after a first look at the data."""
        self.epoch += self._is_in_epoch and self._had_last_batch
        self._is_in_epoch = False
        self._stop_prefetching()

    def _stop_prefetching(self) -> None:
        if self._prefetcher is not None:
            self._prefetcher.close()
            self._prefetcher = None

    def __enter__(self) -> "DataGenerator":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """End threads and processes, as `with` does. Later batches are built when requested."""
        self._stop_prefetching()
        if self._processes is not None:
            self._processes.close()

    def __getitem__(self, index: int) -> tuple[Batch]:
        if index == len(self) - 1:
            self._had_last_batch = True
        # A local name, because Keras may end the epoch in another thread at any moment.
        prefetcher = self._prefetcher
        return self._batch(index) if prefetcher is None else prefetcher.get(index)

    def _batch(self, index: int) -> tuple[Batch]:
        source = self._builder if self._processes is None else self._processes
        return (source.batch(self.epoch, index),)


def data_generator(
    dataset: "Dataset",
    config: "Config",
    shuffle: bool = True,
    augment: bool = False,
    augmentation: Augmentation | None = None,
    random_rois: int = 0,
    batch_size: int = 1,
    detection_targets: bool = False,
    no_augmentation_sources: Sequence[str] | None = None,
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Yield endless batches in the form of the Keras 2 library. Training itself uses DataGenerator.

    Random numbers come from the global generators of NumPy and Python and from the augmenter's own state.

    Args:
        dataset: A prepared Dataset.
        config: Settings of images and targets.
        shuffle: Whether every pass over the data has a different order.
        augment: Mirror half of the images. Deprecated.
        augmentation: One of the kinds in `mrcnn.data.augmentation`, or None.
        random_rois: Number of random RoIs to add to the inputs.
        batch_size: Images per batch.
        detection_targets: With random RoIs, also add those sampled from them, and their targets as outputs.
        no_augmentation_sources: Sources whose images are not augmented.

    Yields:
        (inputs, outputs), lists of arrays padded with zeros, where b = batch_size and M = MAX_GT_INSTANCES.

        - images float32 [b, H, W, channels], mean subtracted; image metas float64 [b, 12 + classes]
        - rpn_match int32 [b, A, 1]; rpn_bbox float64 [b, RPN_TRAIN_ANCHORS_PER_IMAGE, 4]
        - gt_class_ids int32 [b, M]; gt_boxes int32 [b, M, 4] in pixels; gt_masks bool [b, h, w, M]
        - with random_rois: RoIs int32 [b, random_rois, 4]; with detection_targets: sampled RoIs [b, R, 4]

        `outputs` is empty, or class ids [b, R, 1], box deltas [b, R, n, 4] and masks [b, R, h, w, n].

    Raises:
        ValueError: See DataGenerator.
        RuntimeError: See DataGenerator.
    """
    batches.check_has_images(dataset, config)
    not_augmented = batches.checked_sources(no_augmentation_sources)
    anchors = AnchorCache(config)
    failures = ImageFailures(dataset, config.MAX_IMAGE_ERRORS)
    samples: list[Sample] = []
    attempts = 0
    for image_id in _endless_ids(dataset, shuffle):
        attempts += 1
        if attempts > batches.max_attempts(dataset):
            raise batches.no_usable_image(dataset, failures)
        if image_id in failures.reasons:
            continue
        is_augmented = dataset.image_info[image_id]["source"] not in not_augmented
        sample = None
        with failures.tolerate(image_id):
            sample = build_sample(
                dataset,
                config,
                image_id,
                anchors=anchors,
                augment=augment,
                augmentation=augmentation if is_augmented else None,
                keep_empty=batches.trains_when_empty(dataset, config, image_id),
                random_rois=random_rois,
                detection_targets=detection_targets,
            )
        if sample is None:
            continue
        attempts = 0
        samples.append(sample)
        if len(samples) == batch_size:
            inputs = [*stack(samples, config).values(), *_stack_field(samples, "rois")]
            yield inputs, _stack_field(samples, "roi_targets")
            samples = []


def _check_classes(dataset: "Dataset", config: "Config") -> None:
    if dataset.num_classes != config.NUM_CLASSES:
        raise ValueError(
            f"NUM_CLASSES must be {dataset.num_classes}, the number of the dataset's classes with the "
            f"background. Received: NUM_CLASSES={config.NUM_CLASSES}, dataset.class_names="
            f"{list(dataset.class_names)}"
        )


def validation_batches(
    dataset: "Dataset",
    train_dataset: "Dataset",
    config: "Config",
    *,
    seed: int,
    part: tuple[int, int] = (0, 1),
) -> DataGenerator:
    """Return the batches of a validation dataset, with the same images in every epoch.

    Args:
        dataset: The validation dataset.
        train_dataset: The dataset whose class ids the network learns.
        config: The settings.
        seed, part: See `DataGenerator`.

    Raises:
        ValueError: If the dataset does not fit the settings. The message says that it is the validation
            dataset.

    Warns:
        UserWarning: If the datasets give the same ids to classes of different names.
    """
    one_pass = -(-len(dataset.image_ids) // config.BATCH_SIZE)
    steps = min(config.VALIDATION_STEPS or one_pass, max(one_pass, 1))
    try:
        generator = DataGenerator(dataset, config, shuffle=False, steps=steps, seed=seed, part=part)
    except ValueError as error:
        raise ValueError(f"The validation dataset does not fit. {error}") from error
    names, expected = ([info["name"] for info in data.class_info] for data in (dataset, train_dataset))
    if names != expected:
        warnings.warn(
            "The classes of the validation dataset differ from those of the training dataset, or are in "
            "another order. The loss compares class ids, so the validation loss may be wrong. Received: "
            f"validation classes {names}, training classes {expected}. Add the same classes to both "
            "datasets, in the same order.",
            stacklevel=4,
        )
    return generator


def _number_of_steps(dataset: "Dataset", config: "Config", batch_size: int, steps: int | str | None) -> int:
    if steps == "config":
        steps = config.STEPS_PER_EPOCH
    if steps is None or steps == "all":
        return math.ceil(len(dataset.image_ids) / batch_size)
    if not isinstance(steps, (int, np.integer)) or steps < 1:
        raise ValueError(f'`steps` must be a positive integer, "all" or None. Received: steps={steps!r}')
    return int(steps)


def _endless_ids(dataset: "Dataset", shuffle: bool) -> Iterator[int]:
    image_ids = np.copy(dataset.image_ids)
    while True:
        if shuffle:
            np.random.shuffle(image_ids)
        yield from (int(image_id) for image_id in image_ids)


def _stack_field(samples: Sequence[Sample], field: Literal["rois", "roi_targets"]) -> list[np.ndarray]:
    parts = zip(*(getattr(sample, field) for sample in samples), strict=True)
    return [np.stack(part) for part in parts]
