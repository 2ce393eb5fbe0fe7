"""How long does detection take with torchvision's weights, here and in torchvision: the same arithmetic?

    python -m benchmarks.same_weights --sizes 512 800x1333 --backends tensorflow torch --peer-python PYTHON

All contestants take turns. The weights follow the recipe of tests/peers, and every contestant finds the same
objects in the same picture. From a uint8 image in memory to boxes, classes, scores and masks in memory.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from benchmarks.inference import sides
from benchmarks.workers import ROOT, Case, Subprocess, alternate, opened

PEERS = ROOT / "tests" / "peers"
COLUMNS = {
    "contestant": "contestant",
    "seconds": "median s",
    "lower_quartile": "quartile",
    "upper_quartile": "to",
    "cpu_seconds": "CPU s",
    "detections": "detections",
    "times_peer": "times faster than torchvision",
}


def _recipe() -> Any:
    sys.path.insert(0, str(PEERS))
    import recipe

    return recipe


class _Detection:
    """What both contestants share. `Case.network` is "torchvision" or "torchvision-v2"."""

    def __init__(self, case: Case):
        self.image = _recipe().picture(case.height, case.width)

    def gflop(self) -> None:
        """Not counted: it is the same for all."""

    def device_peak(self) -> None:
        """Not measured."""


class Ours(_Detection):
    """MaskRCNN.detect."""

    def __init__(self, case: Case):
        super().__init__(case)
        from mrcnn import config
        from mrcnn.model import MaskRCNN

        preset = config.TorchvisionV2Config if case.network == "torchvision-v2" else config.TorchvisionConfig
        settings = preset()
        settings.IMAGE_MIN_DIM, settings.IMAGE_MAX_DIM = min(self.image.shape[:2]), max(self.image.shape[:2])
        for name, value in case.settings.items():
            setattr(settings, name, value)
        recipe = _recipe()
        with tempfile.TemporaryDirectory() as folder:
            self.model = MaskRCNN("inference", settings, folder)
            path = recipe.write_safetensors(recipe.state(case.network), Path(folder) / "weights.safetensors")
            self.model.load_weights(path)

    def run(self) -> dict[str, Any]:
        """Detect in one image."""
        return self.model.detect([self.image])[0]

    def describe(self, result: dict[str, Any]) -> dict[str, Any]:
        """The number of detections."""
        return {"detections": len(result["scores"])}


class Peer(_Detection):
    """torchvision's model."""

    def __init__(self, case: Case):
        super().__init__(case)
        recipe = _recipe()
        import torchvision_run

        limits = {"min_size": min(self.image.shape[:2]), "max_size": max(self.image.shape[:2])}
        epsilon = 0.0 if case.network == "torchvision" else None
        self.model = torchvision_run.build(case.network, recipe.state(case.network), epsilon, **limits)

    def run(self) -> dict[str, np.ndarray]:
        """Detect in one image."""
        import torch

        with torch.inference_mode():
            pixels = torch.from_numpy(self.image).permute(2, 0, 1).float() / 255
            result = self.model([pixels])[0]
            return {name: np.asarray(x > 0.5 if name == "masks" else x) for name, x in result.items()}

    def describe(self, result: dict[str, np.ndarray]) -> dict[str, Any]:
        """The number of detections."""
        return {"detections": len(result["scores"])}


def _rows(arguments: argparse.Namespace, case: Case) -> list[dict[str, Any]]:
    def ours(backend: str) -> Subprocess:
        return Subprocess(f"ours, {backend}", f"{__spec__.name}:Ours", case, backend=backend)

    makers = [lambda backend=backend: ours(backend) for backend in arguments.backends]
    peer = "torchvision"
    if arguments.peer_python:
        makers.append(lambda: Subprocess(peer, f"{__spec__.name}:Peer", case, arguments.peer_python))
    with opened(makers) as contestants:
        answers = alternate(contestants, arguments.warmup, arguments.repeats)
    seconds = {name: [answer["seconds"] for answer in rounds] for name, rounds in answers.items()}
    rows = []
    for name, rounds in answers.items():
        spread = measure.summary(seconds[name])
        row = {"contestant": name, "seconds": spread.pop("median"), **spread, **vars(case)}
        row["cpu_seconds"] = measure.summary([answer["cpu_seconds"] for answer in rounds])["median"]
        row["detections"] = rounds[-1]["detections"]
        if peer in seconds and name != peer:
            row["times_peer"] = measure.ratio(seconds[peer], seconds[name])
        rows.append(row)
    return rows


def main(argv: Sequence[str] | None = None) -> Path:
    """Run the benchmark and return the path of its JSON file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kinds", nargs="+", default=["torchvision"], help="torchvision torchvision-v2")
    parser.add_argument("--sizes", nargs="+", default=["512"], help="such as 512 800x1333")
    parser.add_argument("--backends", nargs="+", default=["tensorflow"], help="tensorflow torch jax")
    parser.add_argument("--peer-python", help="interpreter with torch and torchvision; none: no peer")
    measure.add_arguments(parser, repeats=7)
    arguments = measure.parsed(parser, argv)
    report = measure.Report("same_weights", arguments, arguments.backends)
    for kind in arguments.kinds:
        for size in arguments.sizes:
            height, width = sides(size)
            case = Case("detect", kind, height, width, settings=dict(arguments.set))
            report.show(_rows(arguments, case), COLUMNS, f"{kind}: {height} x {width}, one image")
    return report.finish()


if __name__ == "__main__":
    main()
