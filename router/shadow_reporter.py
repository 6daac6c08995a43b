"""Tells the controller how shadows compare: sums, kept and added to while it is away."""

import asyncio
import logging

import grpc.aio

from protos.headrace.v1 import cluster_service_pb2, cluster_service_pb2_grpc
from services.bearer import bearer
from services.chassis import channel_options
from services.codec.shadow import gate_report_to_proto, shadow_report_to_proto
from services.tls import Certificates, Party, open_channel
from shards.shadow import GateReport, Report, ShadowReport, added

log = logging.getLogger(__name__)

_CALL_S = 1.0
_MOST_RELEASES = 64
"""A router whose controller stays away for weeks of releases must not grow; the oldest is forgotten."""


class ShadowReporter:
    """Adds up reports by kind, surface and release, and sends them while `run` does.

    Without a controller it only adds. A report whose arrival is unknown is sent again, so a controller that
    answers too late counts it twice.
    """

    def __init__(
        self,
        controller: str,
        token: str | None,
        *,
        interval_s: float,
        certificates: Certificates | None = None,
    ) -> None:
        self._controller = controller
        self._metadata = bearer(token)
        self._interval_s = interval_s
        self._certificates = certificates
        self._sums: dict[tuple[type, str, str], Report] = {}
        self._dropped = 0
        self._refusal = ""

    def add(self, report: Report) -> None:
        """Add a report to those of its release."""
        key = (type(report), report.surface, report.version)
        known = self._sums.pop(key, None)
        self._sums[key] = added(known, report) if known else report
        while len(self._sums) > _MOST_RELEASES:
            forgotten = self._sums.pop(next(iter(self._sums)))
            log.warning("the report of shadow %s@%s is forgotten", forgotten.surface, forgotten.version)

    def dropped(self) -> None:
        """Count a search that no shadow saw because the router was busy."""
        self._dropped += 1

    async def run(self) -> None:
        """Send what there is every interval, until cancelled."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self.flush()

    async def flush(self) -> None:
        """Send what there is; keeps it when the controller does not take it."""
        if self._dropped:
            log.warning("%d searches were not shadowed: the router was busy", self._dropped)
            self._dropped = 0
        if not self._sums or not self._controller:
            return
        sent, self._sums = self._sums, {}
        taken = False
        try:
            taken = await self._send(list(sent.values()))
        finally:
            if not taken:
                # They are older than what has come meanwhile, and are forgotten first.
                newer, self._sums = self._sums, sent
                for report in newer.values():
                    self.add(report)

    async def _send(self, reports: list[Report]) -> bool:
        request = cluster_service_pb2.ReportShadowRequest(
            reports=[shadow_report_to_proto(r) for r in reports if isinstance(r, ShadowReport)],
            gate_reports=[gate_report_to_proto(r) for r in reports if isinstance(r, GateReport)],
        )
        async with open_channel(
            self._controller, self._certificates, Party.CONTROLLER.value, options=channel_options()
        ) as channel:
            stub = cluster_service_pb2_grpc.ClusterServiceStub(channel)
            try:
                await stub.ReportShadow(request, timeout=_CALL_S, metadata=self._metadata)
            except grpc.aio.AioRpcError as error:
                self._say_once(f"{error.code().name}: {error.details()}")
                return False
        self._refusal = ""
        return True

    def _say_once(self, refusal: str) -> None:
        if refusal != self._refusal:
            log.info("controller %s takes no shadow reports yet: %s", self._controller, refusal)
        self._refusal = refusal
