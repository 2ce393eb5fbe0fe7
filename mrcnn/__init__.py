"""Mask R-CNN for Keras 3: detect, outline and name every object of an image."""

__version__ = "3.0.0"
