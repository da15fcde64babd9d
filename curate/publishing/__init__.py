"""Outlier sets on the Hugging Face Hub: what may be passed on, the card, Croissant metadata, publishing and pulling."""
