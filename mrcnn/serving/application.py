"""The application: its addresses, and the path of a request from upload to answer.

A request takes a place in the queue. Its upload is read and checked, then waits to be decoded, is detected in
a batch, and is answered. Only a few images are decoded at a time, so memory does not grow with the queue.
"""

import asyncio
import contextlib
import difflib
import functools
import logging
import reprlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Literal, Protocol, TypeVar

from fastapi import Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse
from fastapi_offline import FastAPIOffline
from starlette.concurrency import run_in_threadpool

import mrcnn
from mrcnn.results import Detections
from mrcnn.results.names import names_of
from mrcnn.serving import answers, descriptions, uploads
from mrcnn.serving.metrics import CONTENT_TYPE, CountRequests, Metrics
from mrcnn.serving.page import page_html, page_policy
from mrcnn.serving.queueing import DetectionQueue, QueueFullError
from mrcnn.serving.refusals import RefusedError
from mrcnn.serving.settings import Settings
from mrcnn.typing import Image

logger = logging.getLogger(__name__)
T = TypeVar("T")
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

MinScore = Annotated[float, Query(ge=0, le=1, description="Leave out detections with a lower score.")]
Page = Annotated[
    int | None, Query(ge=0, description="Number of the page or frame, from 0, in a file that has several.")
]
Channels = Annotated[
    str | None,
    Query(
        pattern=r"^\d{1,4}(,\d{1,4}){0,63}$",
        description="Channels of an image without colors, from 0, such as 0 or 2,1,0.",
    ),
]
Masks = Annotated[
    Literal["rle", "polygons", "none"],
    Query(description="`rle`: COCO's compressed run lengths; `polygons`: corners; `none`: only boxes."),
]
Tolerance = Annotated[
    float,
    Query(
        ge=0,
        le=100,
        description="Largest distance, in pixels, between a polygon and the outline of the mask.",
    ),
]
Name = Annotated[str, Query(max_length=255, description="File name of the image in the answer.")]


def _choice(page: Page = None, channels: Channels = None) -> dict[str, Any]:
    """Return which part of a file to read; see `uploads.decode`."""
    return {"page": page, "channels": None if channels is None else [int(one) for one in channels.split(",")]}


Choice = Annotated[dict[str, Any], Depends(_choice)]


class Detecting(Protocol):
    """A detector: a `mrcnn.MaskRCNN` or a `mrcnn.runtime.Runner`."""

    config: Any

    @property
    def detect(self) -> Callable[..., list[Detections]]:
        """A function from images to the detections of each image."""


def create_app(model: Detecting, name: str = "model", settings: Settings | None = None) -> FastAPI:
    """Return the application of a model.

    Args:
        model: A model in inference mode, or an exported file from `mrcnn.runtime.load`. Its config may hold
            IMAGES_PER_GPU = `settings.batch`, so that images of one size run together.
        name: The name of the model on the page.
        settings: The limits.
    """
    service = Service(model, name, settings or Settings())

    @contextlib.asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        service.queue.start()
        yield
        await run_in_threadpool(service.queue.close)

    app = FastAPIOffline(
        title=f"mrcnn: {name}",
        description=descriptions.SERVICE,
        version=mrcnn.__version__,
        lifespan=run,
        redoc_url=None,
    )
    app.add_middleware(CountRequests, metrics=service.metrics)
    app.add_exception_handler(RefusedError, _refuse)
    app.add_exception_handler(RequestValidationError, _explain_query)
    _add_images(app, service)
    _add_information(app, service)
    return app


class Service:
    """A model, its queue and its metrics.

    Args:
        model: See `create_app`.
        name: See `create_app`.
        settings: The limits.
    """

    def __init__(self, model: Detecting, name: str, settings: Settings) -> None:
        self.name = name
        self.settings = settings
        self.class_names = names_of(model)
        self.limits = settings.limits_for(model.config)
        self.least_score = float(model.config.DETECTION_MIN_CONFIDENCE)
        self.max_objects = int(model.config.DETECTION_MAX_INSTANCES)
        self.metrics = Metrics(lambda: self.queue.taken)
        self.queue = DetectionQueue(
            functools.partial(model.detect, masks="cropped"),
            batch=settings.batch,
            places=settings.places,
            batch_pixels=self.limits.batch_pixels,
            pixels_of=self.limits.network_pixels_of,
            observe=self.metrics.batch,
        )
        # Images of the running batch and of the next one, and one whose answer is made.
        self._decoded = asyncio.Semaphore(2 * settings.batch + 1)

    async def answer(
        self, request: Request, choice: dict[str, Any], form: Callable[[Image, Detections], T]
    ) -> T:
        """Return the answer to a request with an image.

        Args:
            request: The request.
            choice: Which part of the file to read; see `uploads.decode`.
            form: Makes the answer of the image and its detections, in a thread.

        Raises:
            RefusedError: If the request is refused.
        """

        async def detect(content: bytes) -> T:
            uploads.check_channels(choice["channels"], self.limits)
            async with self._decoded:
                image = await run_in_threadpool(uploads.decode, content, self.limits, **choice)
                result = await self._detect(image)
                return await run_in_threadpool(form, image, result)

        return await self._within_limits(request, detect)

    async def decoded(self, request: Request, choice: dict[str, Any], form: Callable[[Image], T]) -> T:
        """Return an answer to a request that only needs the image; see `answer`."""

        async def decode(content: bytes) -> T:
            async with self._decoded:
                image = await run_in_threadpool(uploads.decode, content, self.limits, **choice)
                return await run_in_threadpool(form, image)

        return await self._within_limits(request, decode)

    async def _within_limits(self, request: Request, work: Callable[[bytes], Awaitable[T]]) -> T:
        settings = self.settings
        try:
            with self.queue.place():
                content = await uploads.read_upload(request, settings.max_bytes, settings.upload_seconds)
                await run_in_threadpool(uploads.check_header, content, self.limits)
                return await _unless_gone(request, work(content), settings.answer_seconds)
        except QueueFullError as full:
            raise RefusedError(
                503,
                f"The service is busy. Try again in {full.seconds} s.",
                retry_after=full.seconds,
                is_uploading=True,
            ) from None
        except RefusedError:
            raise
        except Exception as error:
            logger.exception("A request to %s failed.", request.url.path)
            raise RefusedError(
                500, "The detection failed. See the log of the service for the reason."
            ) from error

    async def _detect(self, image: Image) -> Detections:
        try:
            return await asyncio.wrap_future(self.queue.submit(image))
        except ValueError as error:
            raise RefusedError(422, str(error)) from None


async def _unless_gone(request: Request, work: Awaitable[T], seconds: float) -> T:
    """Return the result of `work`, or cancel it if the client disconnects or time runs out."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        if gone.done():
            raise RefusedError(499, "The client closed the connection.")
        raise RefusedError(504, f"The detection took longer than {seconds:g} seconds.")
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _post(app: FastAPI, path: str, description: dict[str, Any]) -> Callable[[Endpoint], Endpoint]:
    """Return the decorator of an address that takes images, and only the parameters of its function."""

    def check_names(request: Request) -> None:
        parameters = request.app.openapi()["paths"][path]["post"]["parameters"]
        known = [parameter["name"] for parameter in parameters if parameter["in"] == "query"]
        for name in request.query_params:
            if name not in known:
                close = difflib.get_close_matches(name, known, n=1)
                hint = f" Did you mean {close[0]}?" if close else ""
                raise RefusedError(
                    400,
                    f"The address has a parameter that {path} does not know: {reprlib.repr(name)}.{hint} "
                    f"Known ones: {', '.join(known)}.",
                    is_uploading=True,
                )
            count = len(request.query_params.getlist(name))
            if count > 1:
                hint = " Put commas between several channels: channels=0,1,2." if name == "channels" else ""
                sentence = f"The address must have {name} once. Received: {count} times.{hint}"
                raise RefusedError(400, sentence, is_uploading=True)

    return app.post(path, dependencies=[Depends(check_names)], **description)


def _add_images(app: FastAPI, service: Service) -> None:
    @_post(app, "/detect", descriptions.DETECT)
    async def detect(
        request: Request,
        choice: Choice,
        min_score: MinScore = 0.0,
        masks: Masks = "rle",
        tolerance: Tolerance = 0.0,
        name: Name = "image",
    ) -> Response:
        def form(image: Image, result: Detections) -> Response:
            found = answers.best(result, min_score)
            service.metrics.objects(found.count)
            content = answers.as_coco(
                found, service.class_names, file_name=name, masks=masks, tolerance=tolerance
            )
            is_complete = result.count < service.max_objects
            info = {"description": service.name, "version": mrcnn.__version__, "is_complete": is_complete}
            return JSONResponse({"info": info, **content})

        return await service.answer(request, choice, form)

    @_post(app, "/overlay", descriptions.OVERLAY)
    async def overlay(request: Request, choice: Choice, min_score: MinScore = 0.5) -> Response:
        def form(image: Image, result: Detections) -> Response:
            found = answers.best(result, min_score)
            found.class_names = found.class_names or ("background", *service.class_names.values())
            service.metrics.objects(found.count)
            return Response(answers.as_overlay(found, image), media_type="image/png")

        return await service.answer(request, choice, form)

    @_post(app, "/picture", descriptions.PICTURE)
    async def picture(request: Request, choice: Choice) -> Response:
        def form(image: Image) -> Response:
            return Response(answers.as_visible_png(image), media_type="image/png")

        return await service.decoded(request, choice, form)


def _add_information(app: FastAPI, service: Service) -> None:
    @app.get("/", include_in_schema=False)
    async def index() -> Response:
        return HTMLResponse(page_html(), headers=page_policy())

    @app.get("/model", **descriptions.MODEL)
    async def model() -> Any:
        settings = service.settings
        return {
            "name": service.name,
            "version": mrcnn.__version__,
            "classes": [{"id": index, "name": name} for index, name in service.class_names.items()],
            "least_score": service.least_score,
            "max_objects": service.max_objects,
            "max_bytes": settings.max_bytes,
            "max_pixels": service.limits.pixels,
        }

    @app.get("/health", **descriptions.HEALTH)
    async def health() -> Response:
        is_running = service.queue.is_running
        content = {"status": "ok" if is_running else "stopping", "requests": service.queue.taken}
        return JSONResponse(content, 200 if is_running else 503)

    @app.get("/metrics", **descriptions.METRICS)
    async def metrics() -> Response:
        return Response(service.metrics.text(), media_type=CONTENT_TYPE)


async def _refuse(request: Request, error: Exception) -> Response:
    assert isinstance(error, RefusedError)
    return error.response()


async def _explain_query(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    name = first["loc"][-1]
    sentence = f"`{name}` in the address is not valid: {first['msg']}. Received: {name}={first.get('input')}"
    return RefusedError(422, sentence, is_uploading=True).response()
