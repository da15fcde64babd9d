"""`srood calibrate`, `srood detect` and `srood export`."""
