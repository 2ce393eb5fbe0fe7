"""Detection in images larger than memory: tile by tile, with whole objects at the seams.

    result = model.detect_large("slide.ome.tif", tile=1024, resume="slide-tiles")

`MaskRCNN.detect_large` and `Runner.detect_large` call `detect_large` of this package. `open_source` lists the
kinds of images, and `mrcnn.tiles.seams` has the rule for objects at seams.
"""

from mrcnn.tiles.detecting import detect_large as detect_large
from mrcnn.tiles.folder import read_result as read_result
from mrcnn.tiles.sources import ArraySource as ArraySource
from mrcnn.tiles.sources import ImageSource as ImageSource
from mrcnn.tiles.sources import RasterSource as RasterSource
from mrcnn.tiles.sources import SlideSource as SlideSource
from mrcnn.tiles.sources import TiffSource as TiffSource
from mrcnn.tiles.sources import open_source as open_source
