"""The gRPC contract: `.proto` files and the code generated from them.

`make protos` regenerates; a test compares. Nothing here imports the rest of Headrace.
"""
