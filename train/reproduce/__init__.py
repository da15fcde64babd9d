"""The paper's experiments, run again: declared in manifests/experiments, one run folder for each training."""
