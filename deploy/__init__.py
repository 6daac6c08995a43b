"""The composition root: the command line, settings and wiring. Imported by nothing."""
