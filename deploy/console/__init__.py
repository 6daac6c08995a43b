"""The console: pages of a cluster for a browser, made on the server from what its gRPC services say."""
