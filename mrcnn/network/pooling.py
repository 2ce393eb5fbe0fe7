"""Max pooling: Keras' layer, which on PyTorch needs no padded copy of its input."""

import keras
from keras import layers

from mrcnn.backend import torch_ops
from mrcnn.network.convolution import margins_of


class MaxPooling2D(layers.MaxPooling2D):
    """keras.layers.MaxPooling2D on [B, h, w, C]."""

    def call(self, inputs):
        if not torch_ops.serve() or self.data_format != "channels_last":
            return super().call(inputs)
        inputs = keras.ops.convert_to_tensor(inputs)
        rows, columns = margins_of(self.padding, inputs.shape[1:3], self.pool_size, self.strides)
        before, after = rows
        # PyTorch knows equal margins, and one cell at the end if a window would start there otherwise.
        known = before == after or (after - before == 1 and min(self.strides) > 1)
        if rows != columns or not known:
            return super().call(inputs)
        return torch_ops.max_pool(inputs, self.pool_size, self.strides, rows)
