"""Detect objects in a folder of any number of images, with many workers."""

import contextlib
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow

from mrcnn.errors import DataError, InvalidDataError
from mrcnn.files.arguments import integers
from mrcnn.files.images import read_image
from mrcnn.scale import tables
from mrcnn.scale.identity import describe
from mrcnn.scale.locations import list_images, open_location, read_content
from mrcnn.scale.reading import Summary, summarize
from mrcnn.scale.worker import Worker
from mrcnn.threads import in_order

# Images that are read before the workers start, until `page` and `channels` fit one.
TRIED_IMAGES = 1000
TRYING_THREADS = 4
# The variables by which TensorFlow and JAX count their threads. Ray itself sets that of PyTorch.
THREAD_VARIABLES = ("TF_NUM_INTRAOP_THREADS", "PJRT_NPROC")


def detect_images(
    source: str | os.PathLike[str],
    output: str | os.PathLike[str],
    model: str | os.PathLike[str] | Callable[[], Any],
    *,
    workers: int = 1,
    cpus: float = 1,
    gpus: float = 0,
    address: str | None = None,
    min_score: float = 0.5,
    images_per_file: int = 64,
    description: str | None = None,
    page: int | None = None,
    channels: Sequence[int] | None = None,
) -> Summary:
    """Detect objects in all images of a folder and its subfolders, and write them as Parquet files.

    Ray starts the workers, each with its own model, gives each the next images when it is ready, and replaces
    workers that die. Each file appears only when it is complete, so after an interruption the same call
    continues with the images that no file contains. Images that cannot be used get a row with the reason. The
    same call tries them again if the reason may have passed: those that could not be read or decoded, and
    those whose files have another size by now.

    Args:
        source: The folder of the images: a path on disk, or an address such as s3://bucket/photos. All
            machines of a cluster must be able to read it.
        output: The folder of the results, on disk or in an object store. `mrcnn.scale.tables` describes its
            files.
        model: The source of `mrcnn.load`, or a function without arguments that returns a model, such as
            functools.partial(mrcnn.runtime.load, "leaves.onnx"). Each worker calls it once.
        workers: Number of workers.
        cpus: CPU cores of each worker.
        gpus: GPUs of each worker: 1, or a fraction if several workers share one.
        address: Address of a Ray cluster, such as "auto" or ray://head:10001. By default, Ray is started on
            this machine, and stopped at the end. If Ray is already running in this process, it is used.
        min_score: Detections with a lower score are left out.
        images_per_file: Number of images whose results are in one file. A worker that ends loses the
            detections in at most so many images; another worker repeats them.
        description: What the files say about the model, by default its name and its arguments. A hash of the
            weights is added to it; see `mrcnn.scale.identity`. If the result differs from that in `output`,
            nothing is detected.
        page, channels: Which image of a stack to read, and which channels, if these are not colors; see
            `mrcnn.files.images.read_image`.

    Returns:
        The numbers of images and detections in `output`, and the images that were left out.

    Raises:
        MissingFileError: If the folder does not exist or contains no images, or there is no such weight file.
        ValueError: If an argument is out of range, or `output` has results of another model.
        InvalidDataError: If `page` and `channels`, or their absence, fit none of the images, of which up to
            1000 are tried; or if the model takes another number of channels.
        ImportError: If Ray is missing.
    """
    _check_numbers(workers=workers, images_per_file=images_per_file, cpus=cpus)
    choice = {"page": page, "channels": None if channels is None else integers("channels", channels)}
    given = {name: value for name, value in choice.items() if value is not None}
    parts = [f"min_score={min_score:g}", *(f"{name}={value}" for name, value in given.items())]
    name = ", ".join([describe(model, description), *parts])
    if callable(model):
        loads = model
    else:
        from mrcnn.loading import load  # Keras, which readers of results do not need

        loads = functools.partial(load, model)
    images = list_images(source)
    waiting = _waiting(source, output, name, images)
    if waiting:
        _check_fits(source, images, given)
        arguments = (loads, os.fspath(source), os.fspath(output), name, min_score, given)
        _run(arguments, waiting, workers, images_per_file, cpus=cpus, gpus=gpus, address=address)
    return summarize(output)


def _waiting(
    source: str | os.PathLike[str], output: str | os.PathLike[str], name: str, images: Sequence[str]
) -> list[str]:
    """Return the images without results, and remove the errors of those that are worth another try."""
    done, left_out = tables.finished_paths(output, name)
    waiting = [path for path in images if path not in done]
    system, root = open_location(source)
    failed = [path for path in waiting if path in left_out]
    sizes = [info.size for info in system.get_file_info([f"{root}/{path}" for path in failed])]
    kept = {
        path
        for path, size in zip(failed, sizes, strict=True)
        if left_out[path].error_size is not None and size in (None, left_out[path].error_size)
    }
    again = {path: left_out[path] for path in failed if path not in kept}
    tables.remove_rows(output, again, {one.file for one in again.values()})
    return [path for path in waiting if path not in kept]


def _check_fits(source: str | os.PathLike[str], images: Sequence[str], choice: Mapping[str, Any]) -> None:
    """Raise InvalidDataError if none of the tried images has the page and the channels to read."""
    system, root = open_location(source)

    def error_of(path: str) -> Exception | None:
        try:
            read_image(read_content(system, f"{root}/{path}"), path, **choice)
        except (OSError, DataError) as error:
            return error
        return None

    wrong, count = None, 0
    tried = images[:: -(-len(images) // TRIED_IMAGES)]
    with contextlib.closing(in_order(error_of, tried, threads=TRYING_THREADS)) as errors:
        for error in errors:
            if error is None:
                return
            if isinstance(error, InvalidDataError) and error.field in ("page", "channels"):
                wrong, count = wrong or error, count + 1  # the worker names other reasons
    if wrong is not None:
        raise InvalidDataError(
            f"{wrong} The same is wrong with all {count} images that were tried, so detection did not start. "
            "If others fit, move them to a folder of their own.",
            field=wrong.field,
        )


def _run(
    arguments: tuple[Any, ...],
    paths: Sequence[str],
    workers: int,
    images_per_file: int,
    *,
    cpus: float,
    gpus: float,
    address: str | None,
) -> None:
    """Run the workers until all images have results."""
    ray = _ray()
    # Fewer images per file if there would be less than one file per worker.
    size = min(images_per_file, -(-len(paths) // workers))
    blocks = [
        pyarrow.table({"path": list(paths[start : start + size])}) for start in range(0, len(paths), size)
    ]
    workers = min(workers, len(blocks))
    is_own = not ray.is_initialized()
    if is_own:
        _start(ray, address, workers, cpus)
    try:
        written = ray.data.from_arrow(blocks).map_batches(
            Worker,
            fn_constructor_args=arguments,
            batch_size=size,  # a block, whose results are one file
            compute=ray.data.ActorPoolStrategy(size=workers),
            num_cpus=cpus,
            num_gpus=gpus or None,
        )
        for batch in written.iter_batches(batch_size=None):
            if refusals := [text for text in batch["refusal"] if text]:
                raise InvalidDataError(f"{refusals[0]} Nothing was detected.", field="channels")
    finally:
        if is_own:
            ray.shutdown()


def _start(ray: Any, address: str | None, workers: int, cpus: float) -> None:
    """Connect to a cluster, or start Ray on this machine."""
    if address is not None:
        ray.init(address=address)
        return
    # One core more than the workers need, for Ray's own tasks. Each worker uses the threads of its share.
    threads = dict.fromkeys(THREAD_VARIABLES, str(max(1, int(cpus))))
    ray.init(
        address="local",
        num_cpus=int(-(-workers * cpus // 1)) + 1,
        include_dashboard=False,
        runtime_env={"env_vars": threads},
    )


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise ImportError(
            'Detection with several workers needs Ray. Install it with: pip install "keras-mrcnn[scale]"'
        ) from error
    return ray


def _check_numbers(**numbers: float) -> None:
    for name, value in numbers.items():
        if value <= 0:
            raise ValueError(f"`{name}` must be positive. Received: {name}={value}")
