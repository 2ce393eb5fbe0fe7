"""Download of published weights and sample data: checked, and whole or not at all."""

import contextlib
import os
import uuid
import zipfile
from pathlib import Path

import h5py
import pooch
from tqdm import tqdm

RELEASES = "https://github.com/matterport/Mask_RCNN/releases"

# ResNet-101, trained on COCO, 81 classes. The authors publish no hash; NVIDIA's Mask R-CNN sample
# for TensorRT quotes this one for the same address.
COCO_MODEL_URL = f"{RELEASES}/download/v2.0/mask_rcnn_coco.h5"
COCO_MODEL_HASH = "md5:e98aaff6f99e307b5e2a8a3ff741a518"

# ResNet-101, 2 classes, and the pictures it was trained on. No hash is known.
BALLOON_MODEL_URL = f"{RELEASES}/download/v2.1/mask_rcnn_balloon.h5"
BALLOON_DATASET_URL = f"{RELEASES}/download/v2.1/balloon_dataset.zip"

# ResNet-50 without classifier, trained on ImageNet; address and hash as in Keras Applications.
IMAGENET_RESNET50_URL = (
    "https://github.com/fchollet/deep-learning-models/releases/download/v0.2/"
    "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5"
)
IMAGENET_RESNET50_HASH = "md5:a268eb855778b3df3c7506639542a6af"


def download_trained_weights(coco_model_path: str | os.PathLike, verbose: int = 1) -> None:
    """Put the COCO weights at a path, unless they are there already.

    verbose: 0 for silence; above, a line before and after and a progress bar.

    Raises as `fetch` does. A file of other content under this name is replaced, as in the original.
    """
    fetch(COCO_MODEL_URL, coco_model_path, COCO_MODEL_HASH, verbose)


def get_imagenet_weights(verbose: int = 1) -> str:
    """Path of ResNet-50's ImageNet weights, downloaded on first use into Keras' cache folder.

    The folder is `models` under the environment variable KERAS_HOME, by default ~/.keras, as in
    the original. Whatever the backbone of a model: these are always ResNet-50's.
    """
    home = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    path = home / "models" / IMAGENET_RESNET50_URL.rpartition("/")[2]
    return str(fetch(IMAGENET_RESNET50_URL, path, IMAGENET_RESNET50_HASH, verbose))


def fetch(url: str, path: str | os.PathLike, known_hash: str | None = None, verbose: int = 1) -> Path:
    """Download a file, check it, and only then give it its name.

    url: http or https.
    path: where the file is to be; missing folders are made. What is there already is kept if it
        passes the check, and replaced by the download if not.
    known_hash: "md5:..." or "sha256:..."; if None, a file named .h5 or .zip must open as such.
    verbose: 0 for silence; above, a line before and after and a progress bar.

    Returns the absolute path.
    Raises ConnectionError if the address cannot be read to its end, OSError if the file fails the
    check or cannot be written; both name address, path, hash, and how to go on by hand.
    """
    path = Path(path).expanduser().absolute()
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder. Received: path={path}; add the file's name.")
    if known_hash is not None and ":" not in known_hash:
        raise ValueError(f"A hash is 'md5:...' or 'sha256:...'. Received: known_hash={known_hash}.")
    if path.exists() and _flaw(path, path.suffix, known_hash) is None:
        return path
    if verbose:
        print(f"Downloading {url} to {path} ...")
    part = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(url, part, progress=bool(verbose))
        flaw = _flaw(part, path.suffix, known_hash)
        if flaw:
            raise OSError(f"the file received is not the one expected: {flaw}")
        os.replace(part, path)
    except OSError as error:
        kind = ConnectionError if isinstance(error, ConnectionError) else OSError
        raise kind(
            f"Could not download {url}: {error}. To go on by hand, put the file at {path} "
            f"(expected hash: {known_hash or 'not known'})."
        ) from error
    finally:
        with contextlib.suppress(OSError):
            part.unlink()
    if verbose:
        print(f"... done, {path.stat().st_size:,} bytes.")
    return path


def _download(url: str, path: Path, progress: bool) -> None:
    from requests import RequestException  # pooch imports it as late, for speed

    try:
        # A total, so that the bar is true; the downloader replaces it. Its own bar would stay open
        # after an error.
        with tqdm(total=1, ncols=79, unit="B", unit_scale=True, disable=not progress) as bar:
            pooch.HTTPDownloader(progressbar=bar)(url, str(path), None)
    except RequestException as error:
        raise ConnectionError(str(error)) from error


def _flaw(path: Path, suffix: str, known_hash: str | None) -> str | None:
    """What is wrong with a file, in a few words; None if nothing is."""
    size = f"{path.stat().st_size:,} bytes"
    if known_hash is not None:
        algorithm, _, expected = known_hash.partition(":")
        received = pooch.file_hash(str(path), alg=algorithm)
        return None if received == expected.lower() else f"hash {algorithm}:{received}, {size}"
    try:
        if suffix == ".h5":
            h5py.File(path, "r").close()
        elif suffix == ".zip":
            with zipfile.ZipFile(path) as archive:
                damaged = archive.testzip()
            return damaged and f"{damaged} in it is damaged, {size}"
    except (OSError, zipfile.BadZipFile) as error:
        return f"{error}, {size}"
    return None
