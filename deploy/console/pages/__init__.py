"""A module for each page: what it asks the cluster, and what of the answer it shows."""
