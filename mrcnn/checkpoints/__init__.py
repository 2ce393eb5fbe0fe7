"""Weights on disk: the files, what fits a network and what does not, downloads, folders of training runs."""
