"""Boxes, anchors, masks and images as numpy arrays; no deep-learning framework is loaded here.

Coordinates are (y1, x1, y2, x2) everywhere, pixels or normalized as each docstring says.
"""
