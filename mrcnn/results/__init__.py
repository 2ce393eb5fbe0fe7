"""The detections of an image, and files for other programs.

A result can save itself and make a table of measurements:

    result, = model.detect(image)
    result.save("leaves.geojson")
    table = result.to_dataframe(image)
"""

from mrcnn.results.detections import Detections as Detections
