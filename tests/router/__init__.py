"""Tests of the router, over real loopback channels."""
