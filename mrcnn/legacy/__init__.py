"""Names and signatures of the Keras 2 library, for programs that were written for it."""
