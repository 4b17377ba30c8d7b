"""The real data sets: download and preparation."""
