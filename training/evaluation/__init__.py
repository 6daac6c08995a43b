"""Evaluation: metrics, the report they go into, and the cascade run in one process."""
