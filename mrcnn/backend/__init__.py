"""The one seam to TensorFlow, JAX and PyTorch: nothing outside this folder asks which backend runs."""
