"""Detection in millions of images, on all cores or GPUs of a machine or a cluster, by Ray Data.

    from mrcnn import scale

    summary = scale.detect_images("s3://photos/2026", "s3://results/2026", "nucleus-light", workers=8)
    for result in scale.read_results("s3://results/2026"):
        print(result.path, result.count)

The results are Parquet files. Started again, `detect_images` continues after the images that they contain.
"""

from mrcnn.scale.detecting import detect_images as detect_images
from mrcnn.scale.reading import Summary as Summary
from mrcnn.scale.reading import read_errors as read_errors
from mrcnn.scale.reading import read_results as read_results
from mrcnn.scale.reading import summarize as summarize
