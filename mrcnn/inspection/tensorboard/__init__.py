"""TensorBoard callbacks: weight and gradient histograms, detections as images, the network's graph."""
