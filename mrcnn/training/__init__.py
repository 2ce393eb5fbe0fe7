"""Training: the network with its losses, layer groups, optimizers, schedules, callbacks and run folders."""
