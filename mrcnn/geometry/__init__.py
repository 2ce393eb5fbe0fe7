"""Boxes, anchors, masks and images as NumPy arrays. This package imports no framework.

    boxes           overlap, suppression, deltas; pixel and normalized coordinates
    anchors         the anchors of the feature pyramid
    masks           boxes and overlap of masks, mini-masks
    mask_crops      masks cropped to their boxes
    packed_crops    the pixels of many such masks as bits of one array
    mask_pasting    masks of detections resized into the image
    polygons        masks of polygons
    rle             run-length encodings of masks
    images          resizing images and masks to the size of the network
    preprocessing   channels, contrast and value range of images; the mean
    value_range     which values of an image are black and white
    image_meta      the vector that describes a molded image
    interpolation   bilinear and nearest sampling

Boxes are (y1, x1, y2, x2) everywhere, in pixels or normalized as each docstring states.
"""
