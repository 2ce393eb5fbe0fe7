"""From a dataset to batches: loading, augmentation, training targets and generators."""
