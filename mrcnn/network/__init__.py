"""The paper: layers and losses as plain formulations, wired in `graphs`. Tensors in, tensors out."""
