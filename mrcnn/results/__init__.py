"""The detections of an image, and the files that other programs open.

result, = model.detect(image)
result.save("leaves.geojson")
table = result.to_dataframe(image)
"""

from mrcnn.results.detections import Detections as Detections
