"""Steady load through routers while faults and operations happen to a real cluster of many processes."""
