"""Tests of the gRPC shells, over real loopback channels."""
