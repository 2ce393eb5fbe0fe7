"""Where each format has its files in a folder of results."""

from collections.abc import Iterable

COUNTS = "counts.csv"
ANNOTATIONS = "annotations.json"
# Formats with a file for each image: its place.
PLACES = {
    "labelme": "labelme/{}.json",
    "yolo": "labels/{}.txt",
    "geojson": "geojson/{}.geojson",
    "imagej": "rois/{}.zip",
    "overlay": "overlays/{}.png",
}
LABEL_PLACES = {"labels": "labels/{}.png", "tiff": "labels/{}.tif"}
# The files of each format that people correct by hand. "labels" writes TIFF files, too: those of large images
# and of many objects.
CORRECTED = {
    **{kind: (place,) for kind, place in PLACES.items() if kind != "overlay"},
    "labels": tuple(LABEL_PLACES.values()),
    "tiff": (LABEL_PLACES["tiff"],),
    "coco": (ANNOTATIONS,),
}


def corrected_places(formats: Iterable[str] = tuple(CORRECTED)) -> list[str]:
    """Return the places of the files of some formats that people correct by hand."""
    return list(dict.fromkeys(place for kind in formats for place in CORRECTED.get(kind, ())))
