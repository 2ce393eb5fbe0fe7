"""Names from the Keras 2 library, kept for existing programs."""
