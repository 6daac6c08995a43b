"""The console: its pages over scripted servers, and in a browser over a real cluster."""
