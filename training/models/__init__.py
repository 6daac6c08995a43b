"""Models: plain modules that know nothing of training, devices, seeds or printing."""
