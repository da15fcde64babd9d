"""Sets made from sets: rows selected, sets merged, and two sets compared. Every result names its parents."""
