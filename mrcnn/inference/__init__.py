"""From images to detections: prepare the inputs, run the network, and map the outputs back to each image."""
