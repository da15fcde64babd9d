"""A set again from its manifest: its inputs found by their fingerprints, built, and compared with what was recorded."""
