"""Tests of the codec: what goes through it comes back equal, and what is wrong is named."""
