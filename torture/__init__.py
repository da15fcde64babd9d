"""Faults and bad inputs on purpose: what `make torture` tries, counts and writes to docs/reliability.md."""
