"""An HTTP service that detects objects in uploaded images, with a page for the browser.

    mrcnn serve nucleus-light

In your own program, `create_app` returns the FastAPI application of a model, and `serve` runs it.

| address | answer |
|---|---|
| `GET /` | a page that shows the objects of an image |
| `POST /detect` | the objects as COCO JSON |
| `POST /overlay` | the image with its objects drawn in, as PNG |
| `POST /picture` | the image as PNG, for browsers that cannot show its format |
| `GET /model` | name, classes and limits |
| `GET /health` | whether the service can detect |
| `GET /metrics` | counts and times for Prometheus |
| `GET /docs` | the reference of the interface, generated from OpenAPI |
"""

from mrcnn.serving.application import create_app as create_app
from mrcnn.serving.server import serve as serve
from mrcnn.serving.settings import Settings as Settings
