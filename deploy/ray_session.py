"""A Ray to work in: one that runs elsewhere, or one of this process's own that ends with it."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from shards.errors import Unavailable

_OBJECT_STORE_BYTES = 100 * 2**20
"""Work passes files, not objects; this is about Ray's minimum."""


@contextmanager
def ray_session(address: str, workers: int) -> Iterator[None]:
    """Be a driver of the Ray at HOST:PORT, or of one of so many CPUs where that is empty, in the block.

    A Ray that this process has joined already is used as it is. Raises `Unavailable` where there is none.
    """
    if ray.is_initialized() or not workers:
        yield
        return
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    with tempfile.TemporaryDirectory(prefix="headrace-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        if not address:
            own = {"num_cpus": workers, "num_gpus": 0, "object_store_memory": _OBJECT_STORE_BYTES}
            options |= own | {"include_dashboard": False, "_temp_dir": folder}
        try:
            ray.init(address=address or "local", **options)
        # Where its processes are late, Ray raises an Exception of no kind of its own.
        except Exception as error:
            raise Unavailable(f"cannot use Ray{' at ' * bool(address)}{address}: {error}") from error
        try:
            yield
        finally:
            ray.shutdown()
