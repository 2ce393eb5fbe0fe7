"""The commands and their options. Heavy modules are imported when a command runs.

Exit codes: 0 success; 1 error; 2 invalid options; 3 success, but some images or entries were left out.
"""

from pathlib import Path
from typing import Annotated, Any

import typer

from mrcnn.cli.messages import finish, report_errors

app = typer.Typer(
    name="mrcnn",
    help="Mask R-CNN: detect, outline and name every object in an image.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 success, 1 error, 2 invalid options, 3 success, but some input was left out, "
    "130 interrupted.",
)

Model = Annotated[
    str,
    typer.Option(
        "--model",
        "-m",
        help="A weight file, the name of published weights such as nucleus-light, or an exported file.",
    ),
]
WeightFile = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="A weight file, or the name of published weights such as nucleus-light."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print only the result, as JSON.")]
Set = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="A setting, such as DETECTION_MIN_CONFIDENCE=0.5. Repeat the option for several settings.",
    ),
]
Data = Annotated[
    Path,
    typer.Argument(
        help=(
            "Annotations: a COCO or VIA JSON file, a YOLO data.yaml, a folder of LabelMe JSON or GeoJSON "
            "files, a folder rois/ of ImageJ files, or a folder or zip archive with images/ and labels/ or "
            "masks/."
        )
    ),
]
Images = Annotated[
    Path | None,
    typer.Option("--images", help="The folder of the images. The default is the folder of the annotations."),
]

Formats = Annotated[
    list[str] | None,
    typer.Option(
        "--format",
        "-f",
        help="What to write to the folder: labels, tiff, coco, labelme, yolo, geojson (QuPath, GIS), imagej, "
        "csv or overlay. Repeat it for more. The default of detect is labels, coco and overlay.",
    ),
]
ExportFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        "-f",
        help="onnx, openvino, litert, torch or saved_model. The default is that of the suffix. litert "
        "and saved_model need KERAS_BACKEND=tensorflow, torch needs KERAS_BACKEND=torch.",
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="float32; float16, which halves the file; or int8, which quarters it. The last two lose "
        "some accuracy, and only ONNX, OpenVINO and LiteRT have them."
    ),
]
Calibration = Annotated[
    Path | None,
    typer.Option(
        help="For int8: a folder or zip archive of images like those in which you want to detect objects, or "
        "one image. The first 100 are used."
    ),
]
CheckImages = Annotated[
    Path | None,
    typer.Option(
        help="An image, or a folder or zip archive of images, on which to compare the file with the model. "
        "The first 10 are used. By default, a synthetic image."
    ),
]
ClassNames = Annotated[
    str | None,
    typer.Option(
        help="Names of the classes, separated by commas; a name with a comma stands in double quotes. By "
        "default, those of the weight file."
    ),
]
RunName = Annotated[
    str | None, typer.Option("--name", help='Name of the run. By default "objects", or that of --resume.')
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", help="Replace existing results, also annotations corrected by hand."),
]
CopyImages = Annotated[
    bool, typer.Option("--copy-images", help="Copy the images, so that the folder is a dataset by itself.")
]
Tolerance = Annotated[
    float | None, typer.Option(min=0, help="How far outlines may leave the masks, in pixels.")
]
Page = Annotated[int | None, typer.Option(min=0, help="The page or slice of stacks, from 0.")]
Channels = Annotated[
    str | None, typer.Option(help="The channels of images without colors, from 0, such as 0 or 2,1,0.")
]

ClassAttribute = Annotated[
    str | None,
    typer.Option(help="Of VIA files: the region attribute that holds the class, if regions have several."),
]

Validation = Annotated[
    Path | None, typer.Option("--validation", help="Annotations of the validation images.")
]
Recipe = Annotated[
    str | None,
    typer.Option(
        help="scratch: random weights, the default without --model. imagenet: a backbone that knows "
        "photographs; needs the extra pretrained. fine-tune: the default with --model. All three vary "
        "the images and let the learning rate rise and fall. constant: neither of the two."
    ),
]
Steps = Annotated[
    int | None,
    typer.Option(min=1, help="Batches per epoch; by default one pass over the data, but at least 100."),
]
TrainBatch = Annotated[
    int | None, typer.Option(min=1, help="Images per batch; by default 4 with imagenet, else 2.")
]
Size = Annotated[
    int | None,
    typer.Option(
        min=64,
        help="Side to which images are resized, a multiple of 64. By default twice the longest side if no "
        "image is longer than 384 pixels, and else 1024. Smaller is faster.",
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(help="Layers to train: heads, 3+, 4+, 5+ or all. By default those of the recipe."),
]
LearningRate = Annotated[
    float | None, typer.Option(min=1e-9, help="The highest learning rate. By default that of the recipe.")
]
AnyOrientation = Annotated[
    bool,
    typer.Option(
        "--any-orientation", help="Turn images in all directions, as seen from above or by a microscope."
    ),
]
CopyPaste = Annotated[
    bool,
    typer.Option("--copy-paste", help="Paste objects of other images, and vary sizes: more from few images."),
]
CrowdsAsObjects = Annotated[
    bool,
    typer.Option(
        "--crowds-as-objects", help="Of COCO files: crowds are single objects. CVAT marks masks as crowds."
    ),
]
ClassName = Annotated[
    str | None,
    typer.Option(
        "--class",
        help="The class of objects that have none, as in label images and ImageJ files. By default object.",
    ),
]


def _image_choice(*options: Any) -> dict[str, Any]:
    """Return the given options for reading images and annotations, by name; see `datasets.image_choice`."""
    from mrcnn.cli import datasets

    return _given(**datasets.image_choice(*options))


def _given(**options: Any) -> dict[str, Any]:
    """Return the options that are not None."""
    return {name: value for name, value in options.items() if value is not None}


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
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Mask R-CNN: detect, outline and name every object in an image."""
    report_errors(debug)


@app.command()
@finish
def detect(
    sources: Annotated[
        list[str],
        typer.Argument(
            help="Image files, a folder or a zip archive; a video; or the number of a camera, such as 0."
        ),
    ],
    model: Model,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder in which to save the results.")
    ] = Path("detected"),
    min_score: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="Leave out detections with a lower score. By default 0.5."),
    ] = None,
    formats: Formats = None,
    overlays: Annotated[
        bool | None, typer.Option(help="Whether to save the images with the detections drawn in.")
    ] = None,
    copy_images: CopyImages = False,
    overwrite: Overwrite = False,
    tolerance: Tolerance = None,
    pixel_size: Annotated[
        float | None,
        typer.Option(min=0, help="Micrometers per pixel, for csv and tiff. By default, what the file says."),
    ] = None,
    page: Page = None,
    channels: Channels = None,
    tile: Annotated[
        int | None,
        typer.Option(min=8, help="For large images: detect in tiles of this side in pixels, such as 1024."),
    ] = None,
    overlap: Annotated[
        int | None, typer.Option(min=1, help="Pixels that tiles share; an eighth of --tile by default.")
    ] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Tiles at once; 1 by default.")] = None,
    settings: Set = None,
    json: Json = False,
) -> Any:
    """Detect the objects in images or a video, and save the results.

    Writes label images, COCO JSON files and counts, or other formats. They train again, after corrections.
    """
    from mrcnn.cli.detecting import detect_sources, parse_pixel_size

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
        overwrite=overwrite,
        tolerance=tolerance,
        pixel_size=parse_pixel_size(pixel_size),
        tiles=_given(tile=tile, overlap=overlap, batch=batch),
        **_image_choice(page, channels),
    )


@app.command()
@finish
def inspect(
    image: Annotated[Path, typer.Argument(help="An image file.")],
    model: WeightFile,
    output: Annotated[
        Path, typer.Option("--output", "-o", help="The folder in which to save the page and the figures.")
    ] = Path("inspected"),
    page: Page = None,
    channels: Channels = None,
    settings: Set = None,
    json: Json = False,
) -> Any:
    """Draw the steps of a model for one image, from anchors to the result, on a page for the browser."""
    from mrcnn.cli.inspecting import inspect_image

    return inspect_image(model, image, output, settings=settings or [], choice=_image_choice(page, channels))


@app.command()
@finish
def scale(
    source: Annotated[
        str,
        typer.Argument(help="The folder of the images: a path, or an address such as s3://bucket/photos."),
    ],
    output: Annotated[
        str, typer.Argument(help="The folder of the results, which are Parquet files: a path or an address.")
    ],
    model: Model,
    workers: Annotated[int, typer.Option(min=1, help="Number of workers, each with its own model.")] = 1,
    cpus: Annotated[float, typer.Option(min=0.1, help="CPU cores of each worker.")] = 1,
    gpus: Annotated[float, typer.Option(min=0, help="GPUs of each worker, such as 1 or 0.5.")] = 0,
    address: Annotated[
        str | None,
        typer.Option(help="Address of a Ray cluster. By default, Ray is started on this machine."),
    ] = None,
    min_score: Annotated[
        float, typer.Option(min=0, max=1, help="Leave out detections with a lower score.")
    ] = 0.5,
    images_per_file: Annotated[int, typer.Option(min=1, help="Images whose results share a file.")] = 64,
    page: Page = None,
    channels: Channels = None,
    settings: Set = None,
    json: Json = False,
) -> Any:
    """Detect in any number of images with many workers, on this machine or a cluster.

    After an interruption, the same command continues with the images that have no results.
    """
    from mrcnn.cli.scaling import detect_with_workers

    return detect_with_workers(
        source,
        output,
        model,
        workers=workers,
        cpus=cpus,
        gpus=gpus,
        address=address,
        min_score=min_score,
        images_per_file=images_per_file,
        settings=settings or [],
        choice=_image_choice(page, channels),
    )


@app.command()
@finish
def export(
    model: Annotated[
        str, typer.Argument(help="A weight file, or the name of published weights such as nucleus-light.")
    ],
    output: Annotated[
        Path,
        typer.Argument(
            help="The file to write: .onnx, .xml (OpenVINO), .tflite (LiteRT), .pt2 (PyTorch), or a folder "
            "(SavedModel)."
        ),
    ],
    format: ExportFormat = None,
    size: Annotated[
        tuple[int, int] | None,
        typer.Option(
            help="The only height and width of images in pixels, multiples of 64, for runtimes that need a "
            "fixed size. By default, sizes may vary."
        ),
    ] = None,
    uint8: Annotated[
        bool, typer.Option("--uint8", help="Make the exported model take 8-bit images.")
    ] = False,
    precision: Precision = "float32",
    calibration: Calibration = None,
    class_names: ClassNames = None,
    check: CheckImages = None,
    unchecked: Annotated[
        bool, typer.Option("--no-check", help="Do not compare the file with the model.")
    ] = False,
    page: Page = None,
    channels: Channels = None,
    settings: Set = None,
    json: Json = False,
) -> Any:
    """Export a model to a file for other programs, and check the file.

    For example: mrcnn export nucleus-light nuclei.onnx --precision int8 --calibration photos/
    """
    from mrcnn.cli.exporting import export_model

    return export_model(
        model,
        output,
        format=format,
        size=size,
        dtype="uint8" if uint8 else "float32",
        precision=precision,
        calibration=calibration,
        class_names=class_names,
        check=check,
        unchecked=unchecked,
        settings=settings or [],
        choice=_image_choice(page, channels),
    )


@app.command()
@finish
def describe(
    data: Data,
    images: Images = None,
    page: Page = None,
    channels: Channels = None,
    class_attribute: ClassAttribute = None,
    class_name: ClassName = None,
    crowds_as_objects: CrowdsAsObjects = False,
    limit: Annotated[int, typer.Option(min=0, help="Number of images to examine; 0 for all.")] = 1000,
    figure: Annotated[Path | None, typer.Option(help="Save a figure to this file, such as data.png.")] = None,
    decode: Annotated[
        bool, typer.Option("--decode", help="Decode the images, too, to find damaged files. Takes longer.")
    ] = False,
    json: Json = False,
) -> Any:
    """Summarize a dataset: counts, sizes, and broken entries."""
    from mrcnn.cli.datasets import describe_dataset

    return describe_dataset(
        data,
        images,
        limit=limit or None,
        figure=figure,
        decode=decode,
        choice=_image_choice(page, channels, class_attribute, class_name, crowds_as_objects),
    )


@app.command()
@finish
def evaluate(
    data: Data,
    model: Model,
    images: Images = None,
    page: Page = None,
    channels: Channels = None,
    class_attribute: ClassAttribute = None,
    class_name: ClassName = None,
    crowds_as_objects: CrowdsAsObjects = False,
    limit: Annotated[int, typer.Option(min=0, help="Number of images to evaluate; 0 for all.")] = 0,
    min_score: Annotated[
        float | None,
        typer.Option(
            min=0,
            max=1,
            help="Also measure precision, recall and F1 of the detections with at least this score.",
        ),
    ] = None,
    settings: Set = None,
    json: Json = False,
) -> Any:
    """Evaluate a model on a dataset with COCO's metrics."""
    from mrcnn.cli.evaluating import evaluate_model

    return evaluate_model(
        data,
        model,
        images,
        limit=limit or None,
        min_score=min_score,
        settings=settings or [],
        quiet=json,
        choice=_image_choice(page, channels, class_attribute, class_name, crowds_as_objects),
    )


@app.command()
@finish
def convert(
    source: Annotated[
        str,
        typer.Argument(
            help="Annotations in any format that `describe` reads, or weights of any supported library."
        ),
    ],
    output: Annotated[
        Path,
        typer.Argument(help="A .json file for annotations, an .h5 file for weights; a folder with --format."),
    ],
    images: Images = None,
    page: Page = None,
    channels: Channels = None,
    class_attribute: ClassAttribute = None,
    class_name: ClassName = None,
    crowds_as_objects: CrowdsAsObjects = False,
    formats: Formats = None,
    copy_images: CopyImages = False,
    overwrite: Overwrite = False,
    settings: Set = None,
    json: Json = False,
) -> Any:
    """Write annotations in another format, or weights as a file of this library."""
    from mrcnn.cli.converting import convert as run

    return run(
        source,
        output,
        images,
        settings=settings or [],
        formats=formats or [],
        copy_images=copy_images,
        overwrite=overwrite,
        choice=_image_choice(page, channels, class_attribute, class_name, crowds_as_objects),
    )


@app.command()
@finish
def train(
    data: Data,
    images: Images = None,
    page: Page = None,
    channels: Channels = None,
    class_attribute: ClassAttribute = None,
    class_name: ClassName = None,
    crowds_as_objects: CrowdsAsObjects = False,
    validation: Validation = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            help="Trained weights to start from: a file or a name.",
        ),
    ] = None,
    recipe: Recipe = None,
    resume: Annotated[
        Path | None, typer.Option("--resume", help="Continue the training run of this weight file.")
    ] = None,
    name: RunName = None,
    logs: Annotated[
        Path | None,
        typer.Option(help='The folder of training runs. By default "logs", or that of --resume.'),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, help="Total number of epochs.")] = 10,
    steps: Steps = None,
    batch: TrainBatch = None,
    size: Size = None,
    layers: Layers = None,
    learning_rate: LearningRate = None,
    any_orientation: AnyOrientation = False,
    copy_paste: CopyPaste = False,
    settings: Set = None,
    json: Json = False,
) -> Any:
    """Train on your annotations, and print the commands for the next steps."""
    from mrcnn.cli.training import TrainOptions, train_model

    options = TrainOptions(
        images=images,
        validation=validation,
        model=model,
        resume=resume,
        name=name,
        logs=logs,
        epochs=epochs,
        recipe=recipe,
        steps=steps,
        batch=batch,
        size=size,
        layers=layers,
        learning_rate=learning_rate,
        any_orientation=any_orientation,
        copy_paste=copy_paste,
        settings=settings or [],
        choice=_image_choice(page, channels, class_attribute, class_name, crowds_as_objects),
    )
    return train_model(data, options)


@app.command()
@finish
def serve(
    model: Annotated[
        str,
        typer.Argument(
            help="A weight file, the name of published weights such as nucleus-light, or an exported file."
        ),
    ],
    host: Annotated[
        str, typer.Option(help="127.0.0.1 serves this machine only, 0.0.0.0 all networks.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port; 0 picks a free one.")] = 8000,
    batch: Annotated[int, typer.Option(min=1, help="Images that the network processes at once.")] = 1,
    queue: Annotated[
        int, typer.Option(min=0, help="Requests that may wait. Further ones are told to try again later.")
    ] = 32,
    max_megabytes: Annotated[float, typer.Option(min=0.001, help="Largest image file in MB.")] = 32,
    max_pixels: Annotated[
        int | None, typer.Option(min=1, help="Largest image in pixels. The default depends on the model.")
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(min=1, help="Seconds allowed for an upload, for a detection, and for shutting down."),
    ] = 60,
    root_path: Annotated[
        str, typer.Option(help="The path under which a proxy publishes the service, such as /nuclei.")
    ] = "",
    settings: Set = None,
) -> Any:
    """Serve a model over HTTP, with a page for the browser.

    Clients send an image and get its objects, as JSON or drawn into the image.

    Ctrl-C or SIGTERM stops the service after it has answered the requests in progress.
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
        str,
        typer.Argument(
            help="A weight file, the name of published weights such as nucleus-light, or an exported file."
        ),
    ],
    size: Annotated[
        list[int] | None,
        typer.Option(
            "--size", min=16, help="Side of the images in pixels. Repeat the option for several sizes."
        ),
    ] = None,
    batch: Annotated[
        list[int] | None,
        typer.Option("--batch", min=1, help="Images per call. Repeat the option for several numbers."),
    ] = None,
    threads: Annotated[
        list[int] | None,
        typer.Option(
            "--threads", min=1, help="Cores to use; all by default. Repeat the option for several numbers."
        ),
    ] = None,
    precision: Annotated[
        list[str] | None,
        typer.Option("--precision", help="float32, bfloat16 or float16; by default that of the model."),
    ] = None,
    repeats: Annotated[
        int, typer.Option(min=1, help="Number of timed detections for each measurement.")
    ] = 10,
    images: Annotated[
        Path | None, typer.Option("--images", help="A folder of images; synthetic ones by default.")
    ] = None,
    page: Page = None,
    channels: Channels = None,
    settings: Set = None,
    json: Json = False,
) -> Any:
    """Measure how fast a model detects on this machine, and find the bottleneck."""
    from mrcnn.cli.benchmarking import benchmark_model

    return benchmark_model(
        model,
        sizes=size or ([] if images else [512]),
        batches=batch or [1],
        threads=threads or [],
        precisions=precision or [],
        repeats=repeats,
        images=images,
        choice=_image_choice(page, channels),
        settings=settings or [],
        quiet=json,
    )
