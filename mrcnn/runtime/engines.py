"""The runtimes of the formats. Each runtime is imported when a file of its format is loaded.

Every engine runs images [B, h, w, C] and returns the outputs by name.
"""

import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mrcnn.errors import InvalidDataError
from mrcnn.packages import require
from mrcnn.runtime.metadata import FILE_NAME, INPUT, KEY, OUTPUTS
from mrcnn.threads import available_cores

PathLike = str | os.PathLike[str]


def cannot_load(runtime: str, error: Exception, path: PathLike) -> InvalidDataError:
    """Return the error for a file that its runtime refuses."""
    return InvalidDataError(
        f"{runtime} cannot load the file. Check that it is complete, or export the model again. {runtime} "
        f"reports: {error}",
        file=path,
    )


class OnnxEngine:
    """ONNX Runtime.

    Args:
        path: The file.
        threads: Threads of one call; None for one per core.
        providers: Execution providers in order of preference, or None for all available ones.
    """

    def __init__(
        self, path: PathLike, threads: int | None = None, providers: Sequence[str] | None = None
    ) -> None:
        runtime = require("onnxruntime", f"Running {os.fspath(path)} needs")
        options = runtime.SessionOptions()
        options.intra_op_num_threads = threads or 0
        options.log_severity_level = 3
        try:
            self.session = runtime.InferenceSession(
                os.fspath(path), options, providers=list(providers or runtime.get_available_providers())
            )
        except Exception as error:  # the runtime derives each of its errors from Exception
            raise cannot_load("ONNX Runtime", error, path) from error

    def metadata(self) -> str | None:
        """Return the text in the file's metadata_props."""
        entries: dict[str, str] = self.session.get_modelmeta().custom_metadata_map
        return entries.get(KEY)

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs for images [B, h, w, C]."""
        return dict(zip(OUTPUTS, self.session.run(list(OUTPUTS), {INPUT: images}), strict=True))


class OpenVinoEngine:
    """OpenVINO.

    Args:
        path: The .xml file, with the .bin file beside it.
        threads: Threads of one call; None for one per core.
        device: The device, such as "CPU", "GPU" or "AUTO".
        precision: "f32", "bf16" or "f16". OpenVINO's own default is "bf16" on processors that support it,
            which moves boxes by pixels.
    """

    def __init__(
        self, path: PathLike, threads: int | None = None, device: str = "CPU", precision: str = "f32"
    ) -> None:
        openvino = require("openvino", f"Running {os.fspath(path)} needs")
        settings: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
        if threads:
            settings["INFERENCE_NUM_THREADS"] = threads
        try:
            model = openvino.Core().read_model(os.fspath(path))
        except RuntimeError as error:
            raise cannot_load("OpenVINO", error, path) from error
        self._metadata = model.get_rt_info(KEY).astype(str) if model.has_rt_info(KEY) else None
        self.compiled = openvino.compile_model(model, device, settings)

    def metadata(self) -> str | None:
        """Return the text in the file's rt_info."""
        return self._metadata

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs for images [B, h, w, C]."""
        results = self.compiled({INPUT: images})
        return {name: np.array(results[name]) for name in OUTPUTS}


class LiteRtEngine:
    """LiteRT.

    Args:
        path: The file.
        threads: Threads of one call; None for one per core that the process may use.
    """

    def __init__(self, path: PathLike, threads: int | None = None) -> None:
        purpose = f"Running {os.fspath(path)} needs"
        runtime = require("ai_edge_litert.interpreter", purpose, package="ai-edge-litert")
        self._path = Path(path)
        try:
            self.interpreter = runtime.Interpreter(
                model_path=os.fspath(path), num_threads=threads or available_cores()
            )
        except ValueError as error:
            raise cannot_load("LiteRT", error, path) from error
        self._call = self.interpreter.get_signature_runner()

    def metadata(self) -> str | None:
        """Return the text in the archive at the end of the file."""
        try:
            with zipfile.ZipFile(self._path) as archive:
                return archive.read(FILE_NAME).decode("utf-8")
        except (zipfile.BadZipFile, KeyError):
            return None

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs for images [B, h, w, C]."""
        return {name: np.array(value) for name, value in self._call(**{INPUT: images}).items()}


class SavedModelEngine:
    """TensorFlow.

    Args:
        path: The folder.
    """

    def __init__(self, path: PathLike) -> None:
        tensorflow = require("tensorflow", f"Running {os.fspath(path)} needs")
        self._path = Path(path)
        if not (self._path / "saved_model.pb").is_file():
            raise InvalidDataError("The folder has no file saved_model.pb.", file=path)
        self._tensor = tensorflow.constant
        try:
            self._model = tensorflow.saved_model.load(os.fspath(path))
            self._call = self._model.signatures["serving_default"]
        except Exception as error:  # a damaged folder raises errors of many kinds
            raise cannot_load("TensorFlow", error, path) from error

    def metadata(self) -> str | None:
        """Return the text in the file of assets.extra."""
        file = self._path / "assets.extra" / FILE_NAME
        return file.read_text(encoding="utf-8") if file.is_file() else None

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs for images [B, h, w, C]."""
        return {name: value.numpy() for name, value in self._call(**{INPUT: self._tensor(images)}).items()}


class TorchEngine:
    """PyTorch, for a program of torch.export.

    Args:
        path: The file. PyTorch unpickles parts of it, which can execute code.
        threads: Threads of one call; None for PyTorch's default. The number applies to all of PyTorch.
    """

    def __init__(self, path: PathLike, threads: int | None = None) -> None:
        self._torch = require("torch", f"Running {os.fspath(path)} needs")
        if threads:
            self._torch.set_num_threads(threads)
        self._files = {FILE_NAME: ""}
        try:
            program = self._torch.export.load(os.fspath(path), extra_files=self._files)
        except Exception as error:  # a damaged file raises errors of many kinds
            raise cannot_load("PyTorch", error, path) from error
        self._call = program.module()

    def metadata(self) -> str | None:
        """Return the text in the file beside the program."""
        return self._files[FILE_NAME] or None

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return the outputs for images [B, h, w, C]."""
        with self._torch.inference_mode():
            results = self._call(self._torch.from_numpy(images))
        return {name: value.numpy() for name, value in zip(OUTPUTS, results, strict=True)}
