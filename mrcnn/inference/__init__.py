"""From images to detections: prepare the inputs, run the network, map the outputs back to each image."""
