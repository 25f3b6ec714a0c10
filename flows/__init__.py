"""Which units run in which order, and the command line."""
