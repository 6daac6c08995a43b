"""The gate models of a placement, read from the folder of bundles before any search uses the placement."""

import asyncio
import logging
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from shards.errors import BundleError
from shards.gate_model import GateModel, open_gate
from shards.placement import Placement
from shards.release import ModelVersion

log = logging.getLogger(__name__)

_READ_S = 10.0
"""A folder that hangs must not keep a placement from the searches: its gates go without their models then."""

NO_GATES: Mapping[ModelVersion, GateModel] = {}


class GateModels:
    """Reads `<root>/<model>/<version>` of every release that a placement names, and keeps what is named.

    A model that cannot be read is left out and tried again with the next placement; its gate goes on with the
    rules alone.
    """

    def __init__(self, root: Path | None, trusted: Collection[str] = ()) -> None:
        self._root = root
        self._trusted = trusted
        self._held: Mapping[ModelVersion, GateModel] = NO_GATES

    async def read(self, placement: Placement) -> Mapping[ModelVersion, GateModel]:
        """Return the models that the placement's releases name, as far as they can be read."""
        found: dict[ModelVersion, GateModel] = {}
        for model in dict.fromkeys(_named(placement)):
            gate = self._held.get(model) or await self._opened(model)
            if gate is not None:
                found[model] = gate
        self._held = found
        return found

    async def _opened(self, model: ModelVersion) -> GateModel | None:
        if self._root is None:
            log.error("gate %s goes by its rules alone: no folder of bundles is known", model)
            return None
        path = self._root / model.model / model.version
        try:
            async with asyncio.timeout(_READ_S):
                return await asyncio.to_thread(open_gate, path, model, self._trusted)
        except (BundleError, OSError, TimeoutError) as error:
            log.error("gate %s goes by its rules alone: %s", model, error or "it was not read in time")
            return None


def _named(placement: Placement) -> Iterator[ModelVersion]:
    """Yield the gate model of every release that may answer."""
    for release in placement.releases.values():
        if release.gate.model:
            yield release.gate.model
    for traffic in placement.traffic.values():
        for release in traffic.releases():
            if release.gate.model:
                yield release.gate.model
