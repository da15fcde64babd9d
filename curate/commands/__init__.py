"""The commands of `curate`, a module for each group: parsing and printing only."""
