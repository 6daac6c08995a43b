"""What a cluster's processes tell of themselves: the operator's file over the defaults."""

import socket
from pathlib import Path

from deploy.settings import ClusterSettings
from services.telemetry_settings import CONTROLLER, ROUTER, ProcessTelemetry, Telemetry
from shards.errors import FieldViolation, InvalidInput
from shards.json_codec import from_json, parse


def telemetry(settings: ClusterSettings) -> Telemetry:
    """Return what the file says, else the defaults; raises `InvalidInput` naming the file and the field."""
    path = settings.telemetry_path
    try:
        return from_json(Telemetry, parse(Path(path).read_bytes()), "telemetry") if path else Telemetry()
    except (OSError, ValueError) as error:
        raise InvalidInput(FieldViolation(path, str(error))) from error


def process_telemetry(settings: ClusterSettings, role: str) -> ProcessTelemetry:
    """Return what this process tells; one without a supervisor is named after its host and port."""
    return ProcessTelemetry(
        role=role,
        name=process_name(settings, role),
        settings=telemetry(settings),
        targets_dir=settings.folders.metrics_dir,
        advertise_host=settings.host,
    )


def process_name(settings: ClusterSettings, role: str) -> str:
    """Return the name of this process in logs, traces and metrics."""
    ports = {ROUTER: settings.router_port, CONTROLLER: settings.controller_port}
    return settings.process or f"{role}.{socket.gethostname()}.{ports[role]}"
