"""The commands and their options. Everything heavy is imported when a command runs.

Exit codes: 0 done; 1 an error; 2 wrong options; 3 done, but some images or entries were left out.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from mrcnn.cli.messages import finish, report_errors

app = typer.Typer(
    name="mrcnn",
    help="Mask R-CNN: detect, outline and name every object of an image.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 error, 2 wrong options, 3 done but something was left out.",
)

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A weight file, a name such as nucleus-light, or an exported file.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON, and nothing else.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", help="A setting, such as DETECTION_MIN_CONFIDENCE=0.5. Repeat it for more."),
]
Data = Annotated[
    Path,
    typer.Argument(
        help="Annotations: a COCO or VIA json, a YOLO data.yaml, a folder of LabelMe json or GeoJSON files, "
        "a folder rois/ of ImageJ, or a folder or zip archive with images/ and labels/."
    ),
]
Images = Annotated[
    Path | None,
    typer.Option("--images", help="The folder of the images, if it is not that of the annotations."),
]


def _version(wanted: bool) -> None:
    if wanted:
        import mrcnn

        typer.echo(f"mrcnn {mrcnn.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show where in the program an error occurred.")
    ] = False,
) -> None:
    """Mask R-CNN: detect, outline and name every object of an image."""
    report_errors(debug)


@app.command()
@finish
def detect(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Images, a folder or a zip archive; a video; or the number of a camera, such as 0."
        ),
    ],
    model: Model,
    output: Annotated[Path, typer.Option("--output", "-o", help="The folder for the results.")] = Path(
        "detected"
    ),
    min_score: Annotated[
        float, typer.Option(min=0, max=1, help="Detections with a lower score are left out.")
    ] = 0.5,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            help="What to write: labels, tiff, coco, labelme, yolo, geojson (QuPath, GIS), imagej, csv or "
            "overlay. Repeat it for more. By default labels, coco and overlay.",
        ),
    ] = None,
    overlays: Annotated[
        bool | None, typer.Option(help="Whether to write the images with their objects drawn in.")
    ] = None,
    copy_images: Annotated[
        bool,
        typer.Option("--copy-images", help="Copy the images, so that the folder is a dataset by itself."),
    ] = False,
    tolerance: Annotated[
        float | None, typer.Option(min=0, help="How far outlines may leave the masks, in pixels.")
    ] = None,
    pixel_size: Annotated[
        float | None,
        typer.Option(min=0, help="Micrometers per pixel, for csv. By default, what the file says."),
    ] = None,
    page: Annotated[int | None, typer.Option(min=0, help="The page or slice of stacks, from 0.")] = None,
    channels: Annotated[
        str | None, typer.Option(help="The channels of images without colors, from 0, such as 0 or 2,1,0.")
    ] = None,
    settings: Set = None,
    json: Json = False,
) -> Any:
    """Find the objects of images or of a video, and write them.

    Writes label images, COCO json files and counts, or other formats. They train again, after corrections.
    """
    from mrcnn.cli.detecting import detect_sources, parse_channels, parse_pixel_size

    return detect_sources(
        sources,
        model,
        output,
        min_score=min_score,
        overlays=overlays,
        settings=settings or [],
        quiet=json,
        formats=formats or [],
        copy_images=copy_images,
        tolerance=tolerance,
        pixel_size=parse_pixel_size(pixel_size),
        page=page,
        channels=parse_channels(channels),
    )


@app.command()
@finish
def export(
    model: Annotated[str, typer.Argument(help="A weight file, or a name such as nucleus-light.")],
    output: Annotated[
        Path,
        typer.Argument(help="The file: .onnx, .xml (OpenVINO), .tflite (LiteRT), or a folder (SavedModel)."),
    ],
    size: Annotated[
        tuple[int, int] | None, typer.Option(help="Height and width, for runtimes that need one fixed size.")
    ] = None,
    uint8: Annotated[bool, typer.Option("--uint8", help="Make the file take images of 8 bits.")] = False,
    settings: Set = None,
    json: Json = False,
) -> Any:
    """Write a model as one file for other programs, and check it."""
    from mrcnn.cli.models import load_keras_model

    loaded = load_keras_model(model, settings or [])
    path = loaded.export(output, size=size, dtype="uint8" if uint8 else "float32")
    return {"path": str(path)}, f"{path} is written and finds what {model} finds."


@app.command()
@finish
def describe(
    data: Data,
    images: Images = None,
    limit: Annotated[int, typer.Option(min=0, help="Images to look at; 0 looks at all.")] = 1000,
    figure: Annotated[Path | None, typer.Option(help="A file for a figure, such as data.png.")] = None,
    json: Json = False,
) -> Any:
    """Show what is in a dataset: counts, sizes, and what is broken."""
    from mrcnn.cli.datasets import describe_dataset

    return describe_dataset(data, images, limit=limit or None, figure=figure, quiet=json)


@app.command()
@finish
def evaluate(
    data: Data,
    model: Model,
    images: Images = None,
    limit: Annotated[int, typer.Option(min=0, help="Images to evaluate; 0 takes all.")] = 0,
    min_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Also measure precision, recall and F1 of scores from here on."),
    ] = None,
    settings: Set = None,
    json: Json = False,
) -> Any:
    """Measure a model on a dataset with the metrics of COCO."""
    from mrcnn.cli.evaluating import evaluate_model

    return evaluate_model(
        data, model, images, limit=limit or None, min_score=min_score, settings=settings or [], quiet=json
    )


@app.command()
@finish
def convert(
    source: Annotated[
        str, typer.Argument(help="Annotations as `describe` takes them, or weights of any library.")
    ],
    output: Annotated[
        Path,
        typer.Argument(help="A .json file for annotations, an .h5 file for weights; a folder with --format."),
    ],
    images: Images = None,
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            help="Write the annotations to a folder: labels, tiff, coco, labelme, yolo, geojson, imagej, csv "
            "or overlay. Repeat it for more.",
        ),
    ] = None,
    copy_images: Annotated[
        bool,
        typer.Option("--copy-images", help="Copy the images, so that the folder is a dataset by itself."),
    ] = False,
    settings: Set = None,
    json: Json = False,
) -> Any:
    """Write annotations in another format, or weights as a file of this library."""
    from mrcnn.cli.converting import convert as run

    return run(
        source, output, images, settings=settings or [], formats=formats or [], copy_images=copy_images
    )


@app.command()
@finish
def train(
    data: Data,
    images: Images = None,
    validation: Annotated[
        Path | None, typer.Option("--validation", help="Annotations of the validation images.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", "-m", help="Weights to start from: a file or a name. None starts from scratch."
        ),
    ] = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Go on with the run of this weight file.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the run.")] = "objects",
    logs: Annotated[Path, typer.Option(help="The folder of all runs.")] = Path("logs"),
    epochs: Annotated[int, typer.Option(min=1, help="Epochs in total.")] = 10,
    steps: Annotated[int | None, typer.Option(min=1, help="Batches per epoch; one pass by default.")] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images per batch.")] = 2,
    layers: Annotated[str, typer.Option(help="Layers to train: heads, 3+, 4+, 5+ or all.")] = "all",
    learning_rate: Annotated[float | None, typer.Option(min=0, help="0.001 by default.")] = None,
    settings: Set = None,
    json: Json = False,
) -> Any:
    """Train on your annotations, and print the commands to go on."""
    from mrcnn.cli.training import train_model

    return train_model(
        data,
        images,
        validation=validation,
        model=model,
        resume=resume,
        name=name,
        logs=logs,
        epochs=epochs,
        steps=steps,
        batch=batch,
        layers=layers,
        learning_rate=learning_rate,
        settings=settings or [],
        quiet=json,
    )


@app.command()
@finish
def serve(
    model: Annotated[
        str, typer.Argument(help="A weight file, a name such as nucleus-light, or an exported file.")
    ],
    host: Annotated[
        str, typer.Option(help="127.0.0.1 serves this machine alone, 0.0.0.0 all networks.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 takes a free one.")] = 8000,
    batch: Annotated[int, typer.Option(min=1, help="Images that the network takes at once.")] = 1,
    queue: Annotated[
        int, typer.Option(min=0, help="Requests that may wait. Further ones are told to come again.")
    ] = 32,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Largest image file.")] = 32,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Largest image. The default depends on the model.")
    ] = None,
    timeout: Annotated[
        float, typer.Option(min=1, help="Seconds for an upload, for a detection, and for the end.")
    ] = 60,
    root_path: Annotated[
        str, typer.Option(help="The path under which a proxy shows the service, such as /nuclei.")
    ] = "",
    settings: Set = None,
) -> Any:
    """Serve a model over HTTP, with a page for the browser.

    Clients send an image and get its objects as JSON, or drawn in.

    Ctrl-C or SIGTERM stops it; the requests in progress are answered before.
    """
    from mrcnn.cli.serving import serve_model

    return serve_model(
        model,
        host=host,
        port=port,
        batch=batch,
        queue=queue,
        max_megabytes=max_megabytes,
        max_pixels=max_pixels,
        timeout=timeout,
        root_path=root_path,
        settings=settings or [],
    )


@app.command()
@finish
def benchmark(
    model: Annotated[
        str, typer.Argument(help="A weight file, a name such as nucleus-light, or an exported file.")
    ],
    size: Annotated[
        list[int] | None, typer.Option("--size", min=16, help="Side of the images in pixels. Repeatable.")
    ] = None,
    batch: Annotated[
        list[int] | None, typer.Option("--batch", min=1, help="Images at once. Repeatable.")
    ] = None,
    threads: Annotated[
        list[int] | None, typer.Option("--threads", min=1, help="Cores to use; all by default. Repeatable.")
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option("--precision", help="float32, bfloat16 or float16; that of the model by default."),
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Timed detections of each kind.")] = 10,
    images: Annotated[
        Path | None, typer.Option("--images", help="A folder of images; made-up ones by default.")
    ] = None,
    settings: Set = None,
    json: Json = False,
) -> Any:
    """Measure how fast a model detects on this machine, and what limits it."""
    from mrcnn.cli.benchmarking import benchmark_model

    return benchmark_model(
        model,
        sizes=size or ([] if images else [512]),
        batches=batch or [1],
        threads=threads or [],
        precisions=precision or [],
        repeats=repeats,
        images=images,
        settings=settings or [],
        quiet=json,
    )
