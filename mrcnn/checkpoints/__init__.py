"""Weight files: read, write and download them, and report how they fit a network."""
