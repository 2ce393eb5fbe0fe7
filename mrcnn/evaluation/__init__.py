"""Scores of predictions against ground truth; works on plain arrays, without a model."""
