"""`srood push`."""
