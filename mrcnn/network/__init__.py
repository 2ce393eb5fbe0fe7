"""The network of the paper, without optimizations: layers, losses, and the graphs that connect them."""
