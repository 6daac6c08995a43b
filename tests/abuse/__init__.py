"""A router among callers who mean it harm: real sockets against a process of its own."""
