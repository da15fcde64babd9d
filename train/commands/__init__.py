"""The commands of `srood`: each parses its options, calls one function and prints."""
