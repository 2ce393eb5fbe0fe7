"""Get the image of a request: read the upload within limits, check the header, decode.

The image is the body of the request, or the only file of a form (multipart/form-data).
"""

import asyncio
import reprlib
from collections.abc import AsyncGenerator, Sequence

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from mrcnn.errors import DataError, InvalidDataError, UnreadableFileError
from mrcnn.files import images
from mrcnn.files.arguments import OPTIONS
from mrcnn.geometry.preprocessing import check_choice
from mrcnn.serving.page_sizes import sizes_until
from mrcnn.serving.refusals import RefusedError
from mrcnn.serving.settings import ImageLimits
from mrcnn.typing import Image

FORM = "multipart/form-data"


async def read_upload(request: Request, max_bytes: int, seconds: float) -> bytes:
    """Return the image file of a request.

    Args:
        request: The request.
        max_bytes: Largest file, in bytes.
        seconds: Time for the upload.

    Raises:
        RefusedError: If there is no file, or it is too large or too slow, or a form has a text, too.
    """
    try:
        content = await asyncio.wait_for(_read_body(request, max_bytes), seconds)
    except asyncio.TimeoutError:
        raise RefusedError(
            408, f"The upload took longer than {seconds:g} seconds. Send a smaller image.", is_uploading=True
        ) from None
    except ClientDisconnect:
        raise RefusedError(400, "The upload was interrupted.") from None
    if request.headers.get("content-type", "").startswith(FORM):
        content = await _file_of_form(request, content)
    if not content:
        raise RefusedError(400, "The request has no image. Send the image file as the body.")
    return content


async def _read_body(request: Request, max_bytes: int) -> bytes:
    stated = request.headers.get("content-length", "0")
    body = bytearray()
    if not stated.isdigit() or int(stated) > max_bytes:
        raise _too_large(max_bytes)
    async for chunk in request.stream():
        body += chunk
        if len(body) > max_bytes:
            raise _too_large(max_bytes)
    return bytes(body)


def _too_large(max_bytes: int) -> RefusedError:
    return RefusedError(
        413,
        f"The file must have at most {max_bytes / 1e6:g} MB. Send a smaller image, or save it as JPEG.",
        is_uploading=True,
    )


async def _file_of_form(request: Request, body: bytes) -> bytes:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    try:
        form = await MultiPartParser(request.headers, stream(), max_files=1, max_fields=16).parse()
    except (MultiPartException, KeyError, ValueError) as error:
        reason = str(error) or type(error).__name__
        raise RefusedError(400, f"The form cannot be read: {reason} Send a form with one file.") from None
    files = [value for value in form.values() if isinstance(value, UploadFile)]
    content = await files[0].read() if files else b""
    await form.close()
    texts = [name for name, value in form.multi_items() if not isinstance(value, UploadFile)]
    if texts:
        hint = "" if files else " If it is the file, curl needs an @ before its path: --form file=@photo.jpg."
        raise RefusedError(
            400,
            f"The form must have one file and nothing else. Received: the text field "
            f"{reprlib.repr(texts[0])}. Pass parameters in the address, such as ?min_score=0.5.{hint}",
        )
    return content


def check_header(content: bytes, limits: ImageLimits) -> None:
    """Check that a file is an image of an allowed size, without decoding it.

    Raises:
        RefusedError: If the file is not an image, or is too large.
    """
    try:
        header = images.read_header(content)
    except UnreadableFileError as error:
        raise RefusedError(415, str(error)) from None
    except InvalidDataError:  # the only reason for it: more pixels than `images.pixel_limit`
        raise RefusedError(
            413,
            f"The file declares too many pixels. This service takes images of up to {limits.pixels:,} "
            "pixels.",
        ) from None
    _check_size(header.height, header.width, limits)


def check_channels(channels: Sequence[int] | None, limits: ImageLimits) -> None:
    """Raise RefusedError if a request chooses more or fewer channels than the model takes."""
    try:
        check_choice(channels, limits.config)
    except InvalidDataError as error:
        raise RefusedError(422, str(error)) from None


def decode(
    content: bytes, limits: ImageLimits, page: int | None = None, channels: Sequence[int] | None = None
) -> Image:
    """Decode a file whose header has been checked; see `mrcnn.files.images.read_image`.

    Args:
        content: The file.
        limits: The largest image.
        page: Number of the image, from 0, in a file with several; its size may differ from the first one.
        channels: Numbers of the channels, from 0, of an image without colors.

    Raises:
        RefusedError: If it cannot be decoded, is too large, or has several pages and `page` is None.
    """
    try:
        for frame in _frames(content, page or 0, channels):
            for height, width in sizes_until(content, frame):
                _check_size(height, width, limits)
        return images.read_image(content, page=page, channels=channels)
    except InvalidDataError as error:
        raise RefusedError(422, OPTIONS.sub("", str(error))) from None
    except DataError as error:
        raise RefusedError(415, str(error)) from None


def _frames(content: bytes, page: int, channels: Sequence[int] | None) -> list[int]:
    """Return the numbers of the images in a file that have to be decoded."""
    if channels is None:
        return [page]
    stack = images.read_stack(content)
    has_channels = "channels" in dict(stack.axes)
    return [stack.frames(page, channel) for channel in channels] if has_channels else [page]


def _check_size(height: int, width: int, limits: ImageLimits) -> None:
    if not width or not height:
        raise RefusedError(415, "The image has no pixels.")
    if height * width > limits.pixels:
        raise RefusedError(
            413,
            f"The image has {width} x {height} pixels, but this service takes at most "
            f"{limits.pixels:,}. Send a smaller image, or parts of it.",
        )
    if limits.is_too_thin(height, width):
        rows, columns = limits.molded_size(height, width)
        raise RefusedError(
            413,
            f"The image of {width} x {height} pixels is too thin: enlarged for the network "
            f"(IMAGE_MIN_DIM={limits.config.IMAGE_MIN_DIM}), it has {columns} x {rows} pixels, but this "
            f"service takes at most {limits.network_pixels:,}. Send parts of it, or pad its short side.",
        )
