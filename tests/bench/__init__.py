"""Benchmarks: `make bench-…`. Each prints a table and writes `build/bench/<name>.json`."""
