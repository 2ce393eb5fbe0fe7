"""Batches for training: DataGenerator for Keras, data_generator for callers of the original."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import numpy as np

from mrcnn.data.batches import Batch, BatchBuilder, nothing_usable, tries
from mrcnn.data.image_errors import ImageFailures
from mrcnn.data.prefetch import Prefetcher
from mrcnn.data.processes import BatchProcesses
from mrcnn.data.samples import Sample, build_sample, stack
from mrcnn.geometry.anchors import AnchorCache


class DataGenerator(keras.utils.PyDataset):
    """Batches of one training or validation set, in an order that can be repeated.

    dataset: a prepared Dataset. config: sizes, targets and the defaults below.
    anchors: [A, (y1, x1, y2, x2)] pixel anchors for images of config.IMAGE_SHAPE, computed if None;
    those of other sizes are computed on demand.
    shuffle: every pass over the data has another order, and passes go on across epochs. Without it
    every epoch begins at the first image.
    augment: mirror half of the images; deprecated. augmentation: see mrcnn.data.augmentation.
    batch_size: config.BATCH_SIZE if not given.
    part: (number, of how many) the equal part of each batch that is built here, for one of several
    processes that share it; they need one seed.
    no_augmentation_sources: sources whose images are not augmented.
    steps: batches per epoch, config.STEPS_PER_EPOCH if not given; "all" or None for one pass, whose
    last batch is filled up from the beginning.
    seed: config.SEED if not given; if that is None, drawn from NumPy's global state.
    workers: threads that build batches while Keras trains, config.LOADER_WORKERS if not given; 0
    builds them in turn. max_queue_size: batches ready at most, workers + 1 if not given.
    use_multiprocessing: as many processes instead, see `processes.BatchProcesses`;
    config.LOADER_PROCESSES if not given.

    generator[i] is `(inputs,)`, inputs a dict of the arrays in `batches.INPUT_DTYPES`, without
    input_rpn_match and input_rpn_bbox if config.RPN_TARGETS_IN_GRAPH. It depends on seed, epoch and
    i only, whatever thread or process builds it. `epoch` counts by itself and may be set. Without
    shuffling and augmentation all epochs are equal. Call fit with shuffle=False: it would ask for
    the batches in an order of its own.

    Images without an object of a class are replaced: by the next one, or by another random one when
    shuffling. So are those that cannot be loaded: they are logged once and listed in `skipped`,
    image id to reason; when more than config.MAX_IMAGE_ERRORS have failed, RuntimeError names them.
    ValueError if the numbers of classes differ, no image has an object, or a batch mixes sizes.
    """

    def __init__(
        self,
        dataset: Any,
        config: Any,
        anchors: np.ndarray | None = None,
        shuffle: bool = True,
        augment: bool = False,
        augmentation: Any = None,
        batch_size: int | None = None,
        no_augmentation_sources: Sequence[str] | None = None,
        steps: int | str | None = "config",
        seed: int | None = None,
        workers: int | None = None,
        use_multiprocessing: bool | None = None,
        max_queue_size: int | None = None,
        part: tuple[int, int] = (0, 1),
    ) -> None:
        workers = config.LOADER_WORKERS if workers is None else workers
        use_processes = config.LOADER_PROCESSES if use_multiprocessing is None else use_multiprocessing
        # Keras' own workers are not used: on JAX and torch its threads begin an epoch with batches left over
        # from the one before, as many as happened to be ready, and its processes are forked.
        super().__init__(workers=1, use_multiprocessing=False, max_queue_size=max_queue_size or workers + 1)
        _check_dataset(dataset, config)
        batch_size = batch_size or config.BATCH_SIZE
        seed = config.SEED if seed is None else seed
        self._builder = BatchBuilder(
            dataset,
            config,
            _number_of_steps(dataset, config, batch_size, steps),
            batch_size,
            int(np.random.randint(2**31)) if seed is None else seed,
            anchors,
            shuffle,
            augment,
            augmentation,
            no_augmentation_sources or (),
            part,
        )
        self.dataset = dataset
        self.config = config
        self.batch_size = batch_size
        self.epoch = 0
        self._threads = workers
        self._processes = BatchProcesses(self._builder, workers) if use_processes and workers else None
        self._prefetcher: Prefetcher | None = None
        self._within_epoch = False
        self._last_batch_seen = False

    def __len__(self) -> int:
        return self._builder.steps

    @property
    def seed(self) -> int:
        """What order and augmentation follow from."""
        return self._builder.seed

    @property
    def skipped(self) -> dict[int, str]:
        """Images that could not be loaded so far: image id to reason."""
        return dict(self._builder.failures.reasons)

    def on_epoch_begin(self) -> None:
        """Start to build batches in advance. Called by Keras."""
        self._within_epoch = True
        self._last_batch_seen = False
        self._stop_prefetching()  # an error may have cut off the last epoch
        if self._threads:
            self._prefetcher = Prefetcher(self._batch, len(self), self._threads, self.max_queue_size)

    def on_epoch_end(self) -> None:
        """Count the epoch. Called by Keras, also where there was none or just a first look."""
        self.epoch += self._within_epoch and self._last_batch_seen
        self._within_epoch = False
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
        """End threads and processes, as `with` does; batches are then built when they are asked for."""
        self._stop_prefetching()
        if self._processes is not None:
            self._processes.close()

    def __getitem__(self, index: int) -> tuple[Batch]:
        if index == len(self) - 1:
            self._last_batch_seen = True
        # Keras may end the epoch in another thread at any moment.
        prefetcher = self._prefetcher
        return self._batch(index) if prefetcher is None else prefetcher.get(index)

    def _batch(self, index: int) -> tuple[Batch]:
        source = self._builder if self._processes is None else self._processes
        return (source.batch(self.epoch, index),)


def data_generator(
    dataset: Any,
    config: Any,
    shuffle: bool = True,
    augment: bool = False,
    augmentation: Any = None,
    random_rois: int = 0,
    batch_size: int = 1,
    detection_targets: bool = False,
    no_augmentation_sources: Sequence[str] | None = None,
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """Endless batches as the original gave them; DataGenerator is what training uses.

    random_rois: add so many random ROIs to the inputs. detection_targets: with random ROIs, add
    also the chosen ones, and their targets as outputs. The rest is as for DataGenerator; draws come
    from the global generators of NumPy and Python and from the augmenter's own state.

    Yields (inputs, outputs), lists of arrays with b = batch_size, M = MAX_GT_INSTANCES and the
    columns zero-padded:
    - images float32 [b, H, W, channels], mean subtracted; image_meta float64 [b, 12 + classes]
    - rpn_match int32 [b, A, 1]; rpn_bbox float64 [b, RPN_TRAIN_ANCHORS_PER_IMAGE, 4]
    - gt_class_ids int32 [b, M]; gt_boxes int32 [b, M, 4] in pixels; gt_masks bool [b, h, w, M]
    - with random_rois: rpn_rois int32 [b, random_rois, 4]; with detection_targets: rois [b, R, 4]
    outputs is empty, or class_ids [b, R, 1], bboxes [b, R, n, 4], masks [b, R, h, w, n].

    Raises ValueError and RuntimeError as DataGenerator does.
    """
    _check_not_empty(dataset)
    anchors = AnchorCache(config)
    failures = ImageFailures(dataset, config.MAX_IMAGE_ERRORS)
    samples: list[Sample] = []
    fruitless = 0
    for image_id in _endless_ids(dataset, shuffle):
        fruitless += 1
        if fruitless > tries(dataset):
            raise nothing_usable(dataset, failures)
        if image_id in failures.reasons:
            continue
        plain = dataset.image_info[image_id]["source"] in (no_augmentation_sources or ())
        sample = None
        with failures.watch(image_id):
            sample = build_sample(
                dataset,
                config,
                image_id,
                anchors,
                augment=augment,
                augmentation=None if plain else augmentation,
                random_rois=random_rois,
                detection_targets=detection_targets,
                rpn_targets=True,
            )
        if sample is None:
            continue
        fruitless = 0
        samples.append(sample)
        if len(samples) == batch_size:
            inputs = [*stack(samples, config).values(), *_stack_rois(samples, "rois")]
            yield inputs, _stack_rois(samples, "roi_targets")
            samples = []


def _check_dataset(dataset: Any, config: Any) -> None:
    if dataset.num_classes != config.NUM_CLASSES:
        raise ValueError(
            f"The dataset has {dataset.num_classes} classes with background, the configuration "
            f"NUM_CLASSES={config.NUM_CLASSES}. Received: classes {list(dataset.class_names)}. "
            "Make them equal."
        )
    _check_not_empty(dataset)


def _check_not_empty(dataset: Any) -> None:
    if len(dataset.image_ids) == 0:
        raise ValueError("The dataset has no image: call add_image, then prepare().")


def _number_of_steps(dataset: Any, config: Any, batch_size: int, steps: int | str | None) -> int:
    if steps == "config":
        steps = config.STEPS_PER_EPOCH
    if steps is None or steps == "all":
        return math.ceil(len(dataset.image_ids) / batch_size)
    if not isinstance(steps, (int, np.integer)) or steps < 1:
        raise ValueError(f'steps must be a positive integer, None or "all". Received: {steps=}')
    return int(steps)


def _endless_ids(dataset: Any, shuffle: bool) -> Iterator[int]:
    image_ids = np.copy(dataset.image_ids)
    while True:
        if shuffle:
            np.random.shuffle(image_ids)
        yield from (int(image_id) for image_id in image_ids)


def _stack_rois(samples: Sequence[Sample], field: str) -> list[np.ndarray]:
    parts = zip(*(getattr(sample, field) for sample in samples), strict=True)
    return [np.stack(part) for part in parts]
