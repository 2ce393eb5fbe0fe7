"""A service over HTTP: images come in, detections go out, and a page shows them.

mrcnn serve nucleus-light

In a program of your own, `create_app` returns the FastAPI application of a model, and `serve` runs it.

| address | answer |
|---|---|
| `GET /` | a page that shows the objects of an image |
| `POST /detect` | the objects as COCO JSON |
| `POST /overlay` | the image with its objects drawn in, as PNG |
| `POST /picture` | the image as PNG, for browsers that cannot show its format |
| `GET /model` | name, classes and limits |
| `GET /health` | whether the service can detect |
| `GET /metrics` | counts and times for Prometheus |
| `GET /docs` | the reference of the interface, made by OpenAPI |
"""

from mrcnn.serving.application import create_app as create_app
from mrcnn.serving.server import serve as serve
from mrcnn.serving.settings import Settings as Settings
