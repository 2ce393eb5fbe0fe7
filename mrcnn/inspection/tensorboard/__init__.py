"""TensorBoard: callbacks that write detections, weights, gradients and the graph of a training network."""
