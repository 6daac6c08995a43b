"""All services that the contract has."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Any

import protos.headrace.v1 as contract


def services() -> Iterator[Any]:
    """Yield the descriptor of every service."""
    for module in pkgutil.iter_modules(contract.__path__):
        if module.name.endswith("_service_pb2"):
            found = importlib.import_module(f"{contract.__name__}.{module.name}")
            yield from found.DESCRIPTOR.services_by_name.values()
