"""Detection in an image larger than memory: memory, time, accuracy at seams, and going on after a kill.

    python -m benchmarks.large_image --images val.zip
    python -m benchmarks.large_image --images val.zip --side 20000 --reference-blocks 16 --one-run --work m

The image is a mosaic, made on the disk as a tiled TIFF file: pieces of 256 x 256 pixels of labeled images,
turned and mirrored at random, with stretched contrast. --images is a zip file or folder with images/ and
labels/. With a split.json beside it, only fluorescence images are used.

The reference sees no seam: the network detects in blocks of 1024 x 1024 pixels, whose borders are borders of
pieces, so that they cut no nucleus. Blocks and tiles get the contrast of the whole mosaic. Both are measured
on these blocks. Tiles lie differently: their seams run through nuclei. `seam` counts the nuclei that cross
the edge of a tile. Nuclei at the border of a block count neither way, because only the mosaic has a neighbor
there.

Each step runs in a process of its own, which reports its peak of memory and its CPU time. One run is killed
in the middle and goes on. By default this is a second run, whose result is compared with that of the first.
With --one-run there is no other; a few tiles from before the kill are then detected once more and compared.

With --work, finished steps and tiles are kept, so that the same command goes on after an interruption.
"""

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import measure
from mrcnn import files

PIECE, BLOCK = 256, 1024
STEPS = ("reference", "tiled")
FIGURES = "figures.json"
REPEATED_TILES = 8


class Mosaic:
    """A mosaic of labeled pieces, each a function of the seed and its place.

    Args:
        images: See the module.
        side: Side of the mosaic in pixels, rounded up to blocks.
        seed: Seed of the order of the pieces.
    """

    def __init__(self, images: Path, side: int, seed: int = 0) -> None:
        self.side = -(-side // BLOCK) * BLOCK
        self.seed = seed
        self._pieces = list(_pieces(images))

    def piece(self, row: int, column: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels uint8 [PIECE, PIECE, 3] and the labels of a piece."""
        rng = np.random.default_rng((self.seed, row, column))
        pixels, labels = self._pieces[rng.integers(len(self._pieces))]
        turns, is_mirrored = rng.integers(4), rng.random() < 0.5
        found = [np.rot90(array[:, ::-1] if is_mirrored else array, turns) for array in (pixels, labels)]
        return found[0], found[1]

    def write(self, path: Path) -> None:
        """Write the mosaic as a tiled TIFF file, piece by piece."""
        import tifffile

        count = self.side // PIECE
        tiles = (
            np.ascontiguousarray(self.piece(row, column)[0])
            for row in range(count)
            for column in range(count)
        )
        tifffile.imwrite(
            path,
            tiles,
            shape=(self.side, self.side, 3),
            dtype=np.uint8,
            tile=(PIECE, PIECE),
            photometric="rgb",
            compression="zlib",
            bigtiff=True,
        )

    def blocks(self, most: int | None) -> list[tuple[int, int]]:
        """The corners (y, x) of the blocks to measure, evenly spread."""
        corners = [(y, x) for y in range(0, self.side, BLOCK) for x in range(0, self.side, BLOCK)]
        if most is None or most >= len(corners):
            return corners
        return [corners[round(index)] for index in np.linspace(0, len(corners) - 1, most)]

    def block(self, y: int, x: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the pixels and the labels of a block; nuclei are numbered through."""
        pixels, labels = np.zeros((BLOCK, BLOCK, 3), np.uint8), np.zeros((BLOCK, BLOCK), np.int32)
        for top in range(0, BLOCK, PIECE):
            for left in range(0, BLOCK, PIECE):
                part, numbers = self.piece((y + top) // PIECE, (x + left) // PIECE)
                window = np.s_[top : top + PIECE, left : left + PIECE]
                pixels[window] = part
                labels[window] = np.where(numbers > 0, numbers + labels.max(), 0)
        return pixels, labels


def _pieces(source: Path) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut labeled images into pieces. The contrast of each image is stretched first."""
    from skimage.measure import label

    from mrcnn import formats
    from mrcnn.geometry.preprocessing import stretch_contrast, with_channels

    dataset = formats.LabelImageDataset()
    dataset.load(source, classes=["nucleus"])
    dataset.prepare()
    split = source.parent / "split.json"
    kinds = {}
    if split.exists():
        content = json.loads(split.read_text())
        kinds = {entry["id"]: entry["modality"] for part in ("train", "val") for entry in content[part]}
    for image_id in dataset.image_ids:
        if kinds.get(dataset.image_info[image_id]["id"], "fluorescence") != "fluorescence":
            continue
        pixels = stretch_contrast(with_channels(dataset.load_image(image_id), 3), (1, 99.8))
        masks, _ = dataset.load_mask(image_id)
        numbers = (masks * np.arange(1, masks.shape[-1] + 1)).max(-1) if masks.shape[-1] else masks.any(-1)
        for y in range(0, pixels.shape[0] - PIECE + 1, PIECE):
            for x in range(0, pixels.shape[1] - PIECE + 1, PIECE):
                window = np.s_[y : y + PIECE, x : x + PIECE]
                yield pixels[window], label(numbers[window], connectivity=1).astype(np.int32)


# --- Steps, each in a process of its own ---


def run_step(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one step, and return its figures."""
    import mrcnn

    model = mrcnn.load(arguments.model)
    started, cpu = time.perf_counter(), time.process_time()
    run = reference if arguments.step == "reference" else tiled
    figures = run(arguments, model)
    figures |= {"seconds": time.perf_counter() - started, "cpu_seconds": time.process_time() - cpu}
    for name in ("seconds", "cpu_seconds"):
        figures[f"{name}_per_megapixel"] = figures[name] / max(figures["megapixels"], 1e-9)
    return figures | {"peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3}


def reference(arguments: argparse.Namespace, model: Any) -> dict[str, Any]:
    """Detect in whole blocks."""
    from mrcnn.tiles import open_source
    from mrcnn.tiles.contrast import TilePreparation

    folder = arguments.work / "reference"
    folder.mkdir(exist_ok=True)
    # A block has room for as many objects as its tiles together.
    model.config.DETECTION_MAX_INSTANCES = 2000
    model.config.PRE_NMS_LIMIT = 32000
    model.config.POST_NMS_ROIS_INFERENCE = 8000
    preparation = TilePreparation(open_source(arguments.work / "mosaic.tif"), model.config, 1)
    for name in ("CONTRAST_PERCENTILES", "IMAGE_VALUE_RANGE"):
        setattr(model.config, name, getattr(preparation.settings, name))
    mosaic = Mosaic(arguments.images, arguments.side)
    corners = mosaic.blocks(arguments.reference_blocks)
    for y, x in corners:
        (found,) = model.detect([preparation.prepare(mosaic.block(y, x)[0])], masks="rle")
        arrays = {name: np.asarray(found[name]) for name in ("rois", "class_ids", "scores")}
        np.savez(folder / f"{y}-{x}.npz", codes=json.dumps(found["masks"]), **arrays)
    return {"megapixels": len(corners) * BLOCK**2 / 1e6}


def tiled(arguments: argparse.Namespace, model: Any) -> dict[str, Any]:
    """Detect in the remaining tiles."""
    folder = arguments.work / arguments.folder
    before = set(tiles_of(folder))
    found = model.detect_large(
        arguments.work / "mosaic.tif",
        arguments.tile,
        arguments.overlap,
        batch=arguments.batch,
        resume=folder,
        progress=sys.stderr.isatty(),
    )
    every = tiles_of(folder)
    written = sorted(path.stat().st_mtime for path in every if path not in before)
    between = float(np.median(np.diff(written))) if len(written) > 1 else float("nan")
    megapixels = found.shape[0] * found.shape[1] / 1e6
    return {
        "tiles": len(written),
        # Those of the tiles of this process.
        "megapixels": megapixels * len(written) / len(every),
        "median_seconds_per_megapixel": between * len(every) / megapixels,
        "objects": found.count,
    }


def tiles_of(folder: Path) -> list[Path]:
    """Return the files of the tiles that are done."""
    return sorted((folder / "tiles").glob("*.npz"))


def start(arguments: argparse.Namespace, step: str, folder: str = "tiled") -> subprocess.Popen:
    """Start a step in a process of its own."""
    options = {
        "images": arguments.images,
        "model": arguments.model,
        "side": arguments.side,
        "tile": arguments.tile,
        "overlap": arguments.overlap,
        "batch": arguments.batch,
        "work": arguments.work,
        "step": step,
        "folder": folder,
    }
    if arguments.reference_blocks is not None:
        options["reference-blocks"] = arguments.reference_blocks
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "benchmarks.large_image", *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen) -> dict[str, Any]:
    """Wait for a step, and return its figures."""
    output = process.communicate()[0]
    if process.returncode:
        raise RuntimeError(f"A step failed with exit code {process.returncode}.")
    figures: dict[str, Any] = json.loads(output.strip().splitlines()[-1])
    return figures


def kill(arguments: argparse.Namespace, folder: str) -> dict[str, Any]:
    """Kill a run when it has done a third of the tiles; return how many are kept, and its memory."""
    from mrcnn.tiles.grid import grid

    count = sum(len(row) for row in grid((arguments.side,) * 2, arguments.tile, arguments.overlap))
    path = arguments.work / folder
    process = start(arguments, "tiled", folder)
    least = max(count // 3, len(tiles_of(path)) + 2)
    while process.poll() is None and len(tiles_of(path)) < least:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGKILL)
    usage = os.wait4(process.pid, 0)[2]
    return {"kept": len(tiles_of(path)), "peak_mb": usage.ru_maxrss / 1e3}


def kill_and_compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Kill a second run, go on, and compare its result with that of the first."""
    from mrcnn.tiles import read_result

    figures = kill(arguments, "killed")
    finish(start(arguments, "tiled", "killed"))
    whole, again = read_result(arguments.work / "tiled"), read_result(arguments.work / "killed")
    same = all(np.array_equal(whole[name], again[name]) for name in ("rois", "class_ids", "scores"))
    bits = np.array_equal(whole["masks"].crops.bits, again["masks"].crops.bits)
    return figures | {"same_result": bool(same and bits)}


def repeat_tiles(arguments: argparse.Namespace, kept: int) -> dict[str, Any]:
    """Detect once more in a few of the tiles that the killed process had done, and compare them."""
    every = tiles_of(arguments.work / "tiled")
    earliest = sorted(every, key=lambda path: path.stat().st_mtime)[:kept]
    chosen = [earliest[round(index)] for index in np.linspace(0, kept - 1, min(REPEATED_TILES, kept))]
    before = {path: dict(np.load(path)) for path in chosen}
    for path in chosen:
        path.unlink()
    finish(start(arguments, "tiled"))
    after = {path: dict(np.load(path)) for path in chosen}
    same = all(
        np.array_equal(before[path][name], after[path][name]) for path in chosen for name in before[path]
    )
    return {"repeated_tiles": len(chosen), "same_tiles": same}


# --- Accuracy ---


def accuracy(arguments: argparse.Namespace, mosaic: Mosaic) -> dict[str, Any]:
    """AP50 and counts of both, on the blocks of the reference; those of nuclei at seams by themselves."""
    from mrcnn.evaluation.coco import CocoMetrics
    from mrcnn.tiles import read_result

    tiled = read_result(arguments.work / "tiled")
    centers = (tiled["rois"][:, :2] + tiled["rois"][:, 2:]) / 2
    edges = inner_edges(mosaic.side, arguments.tile, arguments.overlap)
    metrics = {name: CocoMetrics({1: "nucleus"}, ("mask",), (1, 10, 5000)) for name in STEPS}
    counts = {"nuclei": 0, "seam_nuclei": 0}
    counts |= {f"{kind}_{name}": 0 for kind in ("found", "matched", "seam_matched") for name in STEPS}
    for y, x in mosaic.blocks(arguments.reference_blocks):
        truth = _truth(mosaic.block(y, x)[1])
        counts_in = np.array([not record["iscrowd"] for record in truth], bool)
        is_seam = np.array([crosses(record["bbox"], y, x, edges) for record in truth], bool) & counts_in
        inside = ((centers >= (y, x)) & (centers < (y + BLOCK, x + BLOCK))).all(axis=1)
        rows = {"reference": _reference_rows(arguments.work, y, x)}
        rows["tiled"] = _rows(tiled.select(np.flatnonzero(inside)), y, x)
        counts["nuclei"] += int(counts_in.sum())
        counts["seam_nuclei"] += int(is_seam.sum())
        for name in STEPS:
            metrics[name].add(f"{y}-{x}", (BLOCK, BLOCK), truth, rows[name])
            kept = [row for row in rows[name] if row["score"] >= 0.5]
            matched = _matched(truth, kept) & counts_in
            counts[f"found_{name}"] += len(kept)
            counts[f"matched_{name}"] += int(matched.sum())
            counts[f"seam_matched_{name}"] += int(matched[is_seam].sum())
    ap50 = {f"AP50_{name}": metrics[name].results()["mask_AP50"][0] for name in STEPS}
    return {**ap50, **counts}


def inner_edges(side: int, tile: int, overlap: int) -> np.ndarray:
    """The rows (or columns) at which tiles begin or end inside the mosaic."""
    from mrcnn.tiles.grid import starts_of

    starts = np.array(starts_of(side, tile, overlap))
    edges = np.concatenate([starts, starts + tile])
    return np.unique(edges[(edges > 0) & (edges < side)])


def crosses(box: list[float], y: int, x: int, edges: np.ndarray) -> bool:
    """Whether a box [x, y, width, height] of a block crosses an edge of a tile."""
    left, top, width, height = box
    rows = (edges > y + top) & (edges < y + top + height)
    columns = (edges > x + left) & (edges < x + left + width)
    return bool(rows.any() or columns.any())


def _truth(labels: np.ndarray) -> list[dict[str, Any]]:
    """COCO annotations of the nuclei of a block; those at its border are crowds, which do not count."""
    from skimage.measure import regionprops

    regions = regionprops(labels)
    codes = _run_lengths([region.bbox for region in regions], [region.image for region in regions])
    return [
        {
            **_row(region.bbox, 1.0, code),
            "iscrowd": int(min(region.bbox) == 0 or max(region.bbox) == BLOCK),
            "area": float(region.area),
        }
        for region, code in zip(regions, codes, strict=True)
    ]


def _run_lengths(boxes: Sequence[Any], crops: Sequence[np.ndarray]) -> list[Any]:
    """The run lengths of cropped masks in a block, cut at its borders."""
    from mrcnn.geometry import rle

    inside = [np.clip(box, 0, BLOCK) for box in boxes]
    parts = [
        crop[near[0] - box[0] :, near[1] - box[1] :][: near[2] - near[0], : near[3] - near[1]]
        for box, near, crop in zip(boxes, inside, crops, strict=True)
    ]
    return rle.encode_crops((BLOCK, BLOCK), np.array(inside).reshape(-1, 4), parts)


def _reference_rows(work: Path, y: int, x: int) -> list[dict[str, Any]]:
    with np.load(work / "reference" / f"{y}-{x}.npz") as found:
        codes = json.loads(str(found["codes"]))
        boxes, scores = found["rois"], found["scores"]
    return [_row(box, score, code) for box, score, code in zip(boxes, scores, codes, strict=True)]


def _rows(result: Any, y: int, x: int) -> list[dict[str, Any]]:
    """COCO results of the objects in a block, whose masks are cut at its borders."""
    shift = np.array([y, x, y, x])
    places, crops = [], []
    for place, crop in result.crops():
        places.append(np.asarray(place) - shift)
        crops.append(crop)
    boxes = np.clip(result["rois"] - shift, 0, BLOCK)
    codes = _run_lengths(places, crops)
    return [_row(box, score, code) for box, score, code in zip(boxes, result["scores"], codes, strict=True)]


def _row(box: Any, score: float, code: Any) -> dict[str, Any]:
    y1, x1, y2, x2 = (float(side) for side in box)
    segmentation = {"segmentation": code, "bbox": [x1, y1, x2 - x1, y2 - y1]}
    return {"category_id": 1, "score": float(score), **segmentation}


def _matched(truth: list[dict[str, Any]], rows: list[dict[str, Any]]) -> np.ndarray:
    """Which nuclei have a detection of their own with IoU above 0.5; bool [N]."""
    from pycocotools import mask as run_lengths

    found = np.zeros(len(truth), bool)
    if truth and rows:
        codes = [[row["segmentation"] for row in part] for part in (rows, truth)]
        # Above 0.5 a detection has one nucleus at most.
        found = (np.asarray(run_lengths.iou(*codes, [0] * len(truth))) > 0.5).any(axis=0)
    return found


def main() -> None:
    """Run all steps, print the figures and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--images", type=Path, required=True, help="zip file or folder with images/ and labels/"
    )
    parser.add_argument("--model", default="nucleus-light")
    parser.add_argument("--side", type=int, default=4096, help="side of the mosaic in pixels")
    parser.add_argument("--tile", type=int, default=512)
    parser.add_argument("--overlap", type=int, default=64)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--reference-blocks", type=int, help="blocks to measure; all by default")
    kills = parser.add_mutually_exclusive_group()
    kills.add_argument("--no-kill", action="store_true", help="leave out the run that is killed")
    kills.add_argument("--one-run", action="store_true", help="kill the only run, see above")
    parser.add_argument(
        "--work", type=Path, help="folder for the mosaic and the results; a temporary one by default"
    )
    parser.add_argument("--output", type=Path, help="JSON file for the figures")
    parser.add_argument("--step", choices=STEPS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", default="tiled", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.side = -(-arguments.side // BLOCK) * BLOCK
    if arguments.step:
        print(json.dumps(run_step(arguments)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        arguments.work = arguments.work or Path(temporary)
        figures = run_all(arguments)
    if arguments.output:
        arguments.output.write_text(json.dumps(figures, indent=2, default=str) + "\n")


def run_all(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run the steps that are not finished, and return the figures of all."""
    arguments.work.mkdir(parents=True, exist_ok=True)
    path = arguments.work / FIGURES
    figures: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}

    def step(name: str, work: Callable[[], Any]) -> Any:
        if name not in figures:
            figures[name] = work()
            files.write_json(path, figures, indent=2)
            print(name, figures[name], flush=True)
        return figures[name]

    image = arguments.work / "mosaic.tif"
    mosaic = Mosaic(arguments.images, arguments.side)
    if not image.exists():
        with files.atomic_write(image) as temporary:
            mosaic.write(Path(temporary))
    figures |= {"side": arguments.side, "file_mb": image.stat().st_size / 1e6}
    figures |= {"tile": arguments.tile, "overlap": arguments.overlap, "batch": arguments.batch}
    figures |= {"machine": measure.machine(), "versions": measure.versions()}
    if arguments.one_run:
        step("killed", lambda: kill(arguments, "tiled"))
    step("tiled", lambda: finish(start(arguments, "tiled")))
    step("reference", lambda: finish(start(arguments, "reference")))
    step("accuracy", lambda: accuracy(arguments, mosaic))
    if arguments.one_run:
        step("repeated", lambda: repeat_tiles(arguments, figures["killed"]["kept"]))
    elif not arguments.no_kill:
        step("killed", lambda: kill_and_compare(arguments))
    return figures


if __name__ == "__main__":
    main()
