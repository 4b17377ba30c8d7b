"""Runs as data, their records, and the engines that train what has none."""
