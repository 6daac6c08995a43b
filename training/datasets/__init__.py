"""Datasets: every source becomes the same four tables, checked and sorted in time."""
