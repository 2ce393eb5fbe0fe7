"""Does our network compute what torchvision computes, with the same weights and photographs?

    python -m benchmarks.compare_torchvision --peer-python PYTHON photo1.jpg photo2.jpg ...

Prints one row per photograph: the largest differences of every step. Weights are random by a recipe
(tests/peers/recipe.py), or those of a .pth file.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

PEERS = Path(__file__).resolve().parent.parent / "tests" / "peers"


def main(argv: Sequence[str] | None = None) -> None:
    """Compare and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--peer-python", required=True, help="interpreter with torch and torchvision")
    parser.add_argument("--kinds", nargs="+", default=["torchvision", "torchvision-v2"])
    parser.add_argument("--weights", type=Path, help="a .pth file of torchvision, instead of the recipe")
    parser.add_argument("--sides", nargs=2, type=int, default=[800, 1333], help="short and long side")
    parser.add_argument("--epsilon", type=float, help="of frozen batch norms; none: PyTorch's trainable ones")
    parser.add_argument("--threads", type=int, default=1, help="threads of torchvision")
    parser.add_argument("--keep", type=Path, help="folder in which torchvision's results stay for other runs")
    arguments = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        for kind in arguments.kinds:
            _compare(arguments, kind, Path(folder))


def _compare(arguments: argparse.Namespace, kind: str, folder: Path) -> None:
    sys.path.insert(0, str(PEERS))
    import ours_run
    import recipe

    settings: dict[str, object] = dict(zip(("IMAGE_MIN_DIM", "IMAGE_MAX_DIM"), arguments.sides, strict=True))
    epsilon = 0.0 if kind == "torchvision" else None
    weights = arguments.weights
    if weights is None:
        weights = recipe.write_safetensors(recipe.state(kind), folder / "weights.safetensors")
    else:
        from mrcnn.checkpoints import foreign

        settings |= foreign.preset_for(foreign.read_state(weights)).settings
        epsilon = arguments.epsilon
        settings["BATCH_NORM_EPSILON"] = 1e-5 if epsilon is None else epsilon
    photos = [np.asarray(Image.open(path).convert("RGB")) for path in arguments.photos]
    theirs = _torchvision(arguments, kind, epsilon, photos, folder)
    run = ours_run.Runner(ours_run.build(kind, weights, folder, **settings))
    names: list[str] = []
    for path, photo, results in zip(arguments.photos, photos, theirs, strict=True):
        report = ours_run.compare(results, run(photo))
        if not names:
            names = list(report)
            print(
                f"\n{kind}, {os.environ.get('KERAS_BACKEND', 'tensorflow')}\n| photo | {' | '.join(names)} |"
            )
            print("|" + "---|" * (len(names) + 1))
        numbers = (f"{report.get(name, float('nan')):.3g}" for name in names)
        print(f"| {path.name} {photo.shape[0]} x {photo.shape[1]} | {' | '.join(numbers)} |", flush=True)


def _torchvision(
    arguments: argparse.Namespace, kind: str, epsilon: float | None, photos: list[np.ndarray], folder: Path
) -> list[dict[str, np.ndarray]]:
    """torchvision's results for each photograph."""
    keep = arguments.keep or folder
    keep.mkdir(parents=True, exist_ok=True)
    stem = f"{kind}-{arguments.weights.stem if arguments.weights else 'recipe'}-{arguments.sides[0]}"
    results = []
    for index, photo in enumerate(photos):
        out = keep / f"{stem}-{arguments.photos[index].stem}.npz"
        if not out.exists():
            pixels, job = folder / "photo.npy", folder / "job.json"
            np.save(pixels, photo)
            limits = dict(zip(("min_size", "max_size"), arguments.sides, strict=True))
            state = str(arguments.weights.resolve()) if arguments.weights else "recipe"
            facts = {"kind": kind, "state": state, "epsilon": epsilon, "settings": limits}
            job.write_text(json.dumps(facts | {"images": [str(pixels)], "threads": arguments.threads}))
            runner = str(PEERS / "torchvision_run.py")
            subprocess.run([arguments.peer_python, runner, "detect", str(job), str(out)], check=True)
        with np.load(out) as file:
            results.append({name.split("/", 1)[1]: file[name] for name in file.files})
    return results


if __name__ == "__main__":
    main()
