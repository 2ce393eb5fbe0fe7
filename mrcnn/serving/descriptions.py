"""The descriptions of the addresses in the OpenAPI reference."""

from typing import Any

SERVICE = """
Mask R-CNN: send an image and get the objects in it.

    curl --data-binary @photo.jpg http://127.0.0.1:8000/detect

The image is the body of the request, or the only file of a form. Errors are JSON with one sentence in
`detail`.
"""

_FILE = {"type": "string", "format": "binary"}
_BODY = {
    "required": True,
    "content": {
        "application/octet-stream": {"schema": _FILE},
        "multipart/form-data": {"schema": {"type": "object", "properties": {"file": _FILE}}},
    },
}
_EXAMPLE = {
    "info": {"description": "nucleus-light", "version": "3.0.0", "is_complete": True},
    "images": [{"id": 1, "file_name": "image", "height": 256, "width": 320}],
    "annotations": [
        {
            "id": 1,
            "image_id": 1,
            "category_id": 1,
            "iscrowd": 0,
            "bbox": [6.0, 116.0, 23.0, 9.0],
            "area": 169,
            "segmentation": {"size": [256, 320], "counts": "Pm1..."},
            "score": 0.98,
        }
    ],
    "categories": [{"id": 1, "name": "nucleus"}],
}
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {
        "description": "No image in the request, an unknown or repeated query parameter, or a form with "
        "something else than one file"
    },
    408: {"description": "The upload took too long"},
    413: {"description": "Too many bytes or pixels"},
    415: {"description": "Not an image, or a damaged one"},
    422: {"description": "A query value that is not valid, or an image that does not fit the model"},
    503: {"description": "Busy; the header Retry-After says when to try again"},
    504: {"description": "The detection took too long"},
}


def _images(summary: str, description: str, content: dict[str, Any]) -> dict[str, Any]:
    return {
        "summary": summary,
        "description": description,
        "responses": {200: {"description": "Done", "content": content}, **_REFUSALS},
        "openapi_extra": {"requestBody": _BODY},
        "tags": ["images"],
    }


DETECT = _images(
    "The objects of an image, as COCO JSON",
    "Objects are sorted by descending score. `bbox` is [x, y, width, height], and `area` is the number of "
    "pixels of the mask. The answer is a complete COCO file. `is_complete` is false if the model found as "
    "many objects as it returns at most; there may be more.",
    {"application/json": {"example": _EXAMPLE}},
)
OVERLAY = _images(
    "The image with its objects drawn in, as PNG",
    "Images smaller than 1024 pixels are enlarged by a whole factor.",
    {"image/png": {"schema": _FILE}},
)
PICTURE = _images(
    "The image itself, as PNG",
    "For formats that browsers cannot show, such as TIFF. Nothing is detected.",
    {"image/png": {"schema": _FILE}},
)
MODEL: dict[str, Any] = {"summary": "Name, classes and limits", "tags": ["service"]}
HEALTH: dict[str, Any] = {"summary": "200 if the service can detect, 503 while it stops", "tags": ["service"]}
METRICS: dict[str, Any] = {"summary": "Counts and times for Prometheus", "tags": ["service"]}
