"""Download published weights and sample data. Every file is checked before it gets its name."""

import errno
import os
import urllib.parse
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import pooch
from tqdm import tqdm

from mrcnn.checkpoints.pretrained import write_efficientnet_lite0
from mrcnn.errors import MissingFileError
from mrcnn.files import atomic_write

RELEASES = "https://github.com/matterport/Mask_RCNN/releases"

# ResNet-101, trained on COCO, 81 classes. The authors publish no hash; NVIDIA's Mask R-CNN sample
# for TensorRT quotes this one for the same address.
COCO_MODEL_URL = f"{RELEASES}/download/v2.0/mask_rcnn_coco.h5"
COCO_MODEL_HASH = "md5:e98aaff6f99e307b5e2a8a3ff741a518"

# ResNet-101, 2 classes, and the images it was trained on. No hash is known.
BALLOON_MODEL_URL = f"{RELEASES}/download/v2.1/mask_rcnn_balloon.h5"
BALLOON_DATASET_URL = f"{RELEASES}/download/v2.1/balloon_dataset.zip"

# ResNet-50 without classifier, trained on ImageNet; address and hash as in Keras Applications.
IMAGENET_RESNET50_URL = (
    "https://github.com/fchollet/deep-learning-models/releases/download/v0.2/"
    "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
IMAGENET_RESNET50_HASH = "md5:a268eb855778b3df3c7506639542a6af"

EFFICIENTNET_LITE0_NAME = "efficientnet-lite0-imagenet-57934424.h5"

# MobileNetV2 without classifier, trained on ImageNet; address as in Keras Applications, which has no hash.
IMAGENET_MOBILENET_V2_URL = (
    "https://storage.googleapis.com/tensorflow/keras-applications/mobilenet_v2/"
    "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5"
)
MOBILENET_V2_NAME = "mobilenet-v2-imagenet.h5"

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")


class PublishedWeights(NamedTuple):
    """A weight file on the Internet, and its hash."""

    url: str
    known_hash: str


# Weights that other libraries publish. PyTorch's file names end with the first digits of their SHA-256.
TORCHVISION_URL = "https://download.pytorch.org/models"
PUBLISHED = {
    "torchvision": PublishedWeights(
        f"{TORCHVISION_URL}/maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", "sha256-prefix:bf2d0c1e"
    ),
    "torchvision-v2": PublishedWeights(
        f"{TORCHVISION_URL}/maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", "sha256-prefix:73cbd019"
    ),
}

# Weights that come with the samples, by their paths in the repository.
SHIPPED = {"nucleus-light": "samples/nucleus/weights/nucleus-light.h5"}


def download_trained_weights(coco_model_path: str | os.PathLike[str], verbose: int = 1) -> str:
    """Download published weights, unless the file exists.

    Args:
        coco_model_path: Path of the file to write, for the COCO weights of the Keras 2 library (ResNet-101,
            81 classes). A file with other content is replaced. Alternatively a name in `PUBLISHED`, such as
            "torchvision-v2", whose file is saved in Keras' cache folder; see `cache_folder`.
        verbose: 0 prints nothing; 1 prints a line before and after, and a progress bar.

    Returns:
        The path of the file.

    Raises:
        ConnectionError, OSError: See `fetch`.
    """
    if (published := PUBLISHED.get(str(coco_model_path))) is not None:
        path = cache_folder() / published.url.rpartition("/")[2]
        return str(fetch(published.url, path, published.known_hash, verbose))
    return str(fetch(COCO_MODEL_URL, coco_model_path, COCO_MODEL_HASH, verbose))


def get_imagenet_weights(verbose: int = 1, backbone: str = "resnet50") -> str:
    """Put ImageNet weights into Keras' cache folder, unless they are already there.

    The cache folder is `models` under the environment variable KERAS_HOME, by default ~/.keras.

    Args:
        verbose: See `download_trained_weights`.
        backbone: "efficientnetlite0" takes the weights from an installed package, and "mobilenetv2" those of
            Keras Applications; see the modules `pretrained` and `keras_applications` beside this one. Any
            other name downloads ResNet-50's.

    Returns:
        The path of the file.

    Raises:
        ConnectionError, OSError: See `fetch`.
        MissingFileError: If the package with the weights is not installed.
        InvalidDataError: If the file of the weights is damaged.
    """
    if backbone == "efficientnetlite0":
        return str(write_efficientnet_lite0(cache_folder() / EFFICIENTNET_LITE0_NAME))
    if backbone == "mobilenetv2":
        return _mobilenet_v2(cache_folder() / MOBILENET_V2_NAME, verbose)
    path = cache_folder() / IMAGENET_RESNET50_URL.rpartition("/")[2]
    return str(fetch(IMAGENET_RESNET50_URL, path, IMAGENET_RESNET50_HASH, verbose))


def _mobilenet_v2(path: Path, verbose: int) -> str:
    """Download and convert the ImageNet weights of MobileNetV2, unless the converted file exists."""
    if not path.is_file():
        from mrcnn.checkpoints.keras_applications import write_mobilenet_v2  # needs Keras

        source = path.with_name(IMAGENET_MOBILENET_V2_URL.rpartition("/")[2])
        write_mobilenet_v2(path, fetch(IMAGENET_MOBILENET_V2_URL, source, verbose=verbose))
    return str(path)


def shipped_weights(name: str) -> Path:
    """Return the path of weights that come with the package, in a wheel or in the samples of a clone.

    Args:
        name: A name in `SHIPPED`.

    Raises:
        MissingFileError: If this installation does not include them.
    """
    here = Path(__file__).resolve().parent
    in_clone = here.parents[1] / SHIPPED[name]
    for path in (here / "shipped" / in_clone.name, in_clone):
        if path.is_file():
            return path
    raise MissingFileError(
        f"this installation lacks the weights {name!r}. Get {SHIPPED[name]} from the repository, and pass "
        "its path.",
        file=in_clone,
    )


def cache_folder() -> Path:
    """Return the folder in which Keras caches weights: $KERAS_HOME/models, by default ~/.keras/models."""
    return Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras") / "models"


def fetch(url: str, path: str | os.PathLike[str], known_hash: str | None = None, verbose: int = 1) -> Path:
    """Download a file and check it. The file only gets its name if it passes the check.

    Args:
        url: An https address. An http address is only allowed for a server on this machine. The server must
            not redirect to an http address either.
        path: The file to write. Missing folders are created. An existing file is kept if it passes the check,
            and replaced otherwise.
        known_hash: "md5:...", "sha256:..." or "sha256-prefix:..." with the first digits. If None, a file
            named .h5 or .zip must open as one.
        verbose: 0 prints nothing; 1 prints a line before and after, and a progress bar. Without `known_hash`,
            the line after shows the hash of the file, to compare it with that of other downloads.

    Returns:
        The absolute path.

    Raises:
        ConnectionError: If the download fails.
        OSError: If the file does not pass the check or cannot be written. Both errors name the address, the
            path and the hash, and explain how to download the file manually.
        ValueError: If `url` or `known_hash` does not have this form.
    """
    path = Path(path).expanduser().absolute()
    if path.is_dir():
        raise IsADirectoryError(
            errno.EISDIR, "`path` must name a file, and this is a folder. Append a file name", str(path)
        )
    if known_hash is not None and ":" not in known_hash:
        raise ValueError(f"`known_hash` must be 'md5:...' or 'sha256:...'. Received: {known_hash!r}")
    if not _is_encrypted(url):
        raise ValueError(f"`url` must be an HTTPS URL. Received: {url!r}")
    if path.exists() and _defect(path, path.suffix, known_hash) is None:
        return path
    if verbose:
        print(f"Downloading {url} to {path} ...")
    try:
        with atomic_write(path) as temporary:
            _download(url, temporary, progress=bool(verbose))
            defect = _defect(temporary, path.suffix, known_hash)
            if defect:
                raise OSError(f"the server sent a different file than expected: {defect}")
    except OSError as error:
        cause = error.__cause__ or error  # `atomic_write` wraps what the block raises
        kind = ConnectionError if isinstance(cause, ConnectionError) else OSError
        raise kind(
            f"Cannot download {url}: {cause}. To continue manually, download the file to {path} (expected "
            f"hash: {known_hash or 'not known'})."
        ) from error
    if verbose:
        received = "" if known_hash else f", sha256:{pooch.file_hash(str(path), alg='sha256')}"
        print(f"... done, {path.stat().st_size:,} bytes{received}.")
    return path


def _is_encrypted(url: str) -> bool:
    """Return whether an address uses https or is on this machine."""
    address = urllib.parse.urlsplit(url)
    return address.scheme == "https" or address.hostname in LOCAL_HOSTS


def _check_encrypted(response: Any, *_: Any, **__: Any) -> None:
    if not _is_encrypted(response.url):
        raise ConnectionError(f"the server redirected to {response.url}, which is not an HTTPS URL")


def _download(url: str, path: Path, progress: bool) -> None:
    from requests import RequestException  # pooch imports it late, too: it is slow

    try:
        # The downloader replaces the total. A bar of its own would stay open after an error.
        with tqdm(total=1, ncols=79, unit="B", unit_scale=True, disable=not progress) as bar:
            # requests calls the hook for each address that the server leads to.
            hooks = {"response": _check_encrypted}
            pooch.HTTPDownloader(progressbar=bar, hooks=hooks)(url, str(path), None)
    except RequestException as error:
        raise ConnectionError(str(error)) from error


def _defect(path: Path, suffix: str, known_hash: str | None) -> str | None:
    """Describe briefly what is wrong with a file, or return None if it passes the check."""
    size = f"{path.stat().st_size:,} bytes"
    if known_hash is not None:
        algorithm, _, expected = known_hash.partition(":")
        algorithm, _, is_prefix = algorithm.partition("-")
        received = pooch.file_hash(str(path), alg=algorithm)
        compared = received[: len(expected)] if is_prefix else received
        return None if compared == expected.lower() else f"hash {algorithm}:{received}, {size}"
    try:
        if suffix == ".h5":
            h5py.File(path, "r").close()
        elif suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            return damaged and f"the member {damaged} is damaged, {size}"
    except (OSError, zipfile.BadZipFile) as error:
        return f"{error}, {size}"
    return None
