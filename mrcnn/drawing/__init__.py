"""Drawing without a user interface: colors, masks painted into arrays, figures in a notebook.

    colors    RGB triples for instances and classes
    masks     masks and their outlines painted into image arrays, with OpenCV
    display   matplotlib, imported late, and its figures shown once

`mrcnn.visualize` builds its figures on these.
"""
