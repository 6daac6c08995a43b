"""What `headrace shards plan --out` writes and `apply` reads: a `headrace.v1.Plan` in protobuf's JSON."""

from pathlib import Path

from google.protobuf import json_format

from protos.headrace.v1 import cluster_service_pb2 as pb
from services.durable_file import replace_file
from shards.errors import FieldViolation, InvalidInput


def write_plan(path: Path, plan: pb.Plan) -> None:
    """Write a plan; raises `InvalidInput` naming the file if it cannot be written."""
    text = json_format.MessageToJson(plan, always_print_fields_with_no_presence=True)
    try:
        replace_file(path, text.encode() + b"\n")
    except OSError as error:
        raise InvalidInput(FieldViolation(str(path), f"cannot be written: {error.strerror}")) from error


def read_plan(path: Path) -> pb.Plan:
    """Return the plan in a file; raises `InvalidInput` naming the file if it cannot be read."""
    try:
        return json_format.Parse(path.read_bytes(), pb.Plan())
    except OSError as error:
        raise InvalidInput(FieldViolation(str(path), f"cannot be read: {error.strerror}")) from error
    except (json_format.ParseError, UnicodeDecodeError) as error:
        raise InvalidInput(FieldViolation(str(path), f"is not a plan: {error}")) from error
