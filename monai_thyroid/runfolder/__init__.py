"""The run folder: the files that a training leaves, from which everything else is made."""
