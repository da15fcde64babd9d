"""From a run to a detector: a threshold, decisions on images, one file that decides by itself."""
