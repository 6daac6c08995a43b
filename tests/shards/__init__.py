"""Tests of the pure core and the engines."""
