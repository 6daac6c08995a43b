"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from deploy.workspace import Workspace
from protos.headrace.v1 import types_pb2 as pb
from shards.errors import FieldViolation, InvalidInput

WorkspaceOption = Annotated[
    Path,
    typer.Option("--workspace", envvar="HEADRACE_WORKSPACE", help="Folder of models, releases and state."),
]
DEFAULT_WORKSPACE = Path(".headrace")

ProjectOption = Annotated[
    Path | None,
    typer.Option(help="Folder of headrace.toml; default: the one in which the workspace lies, if any."),
]

ControllerOption = Annotated[
    str, typer.Option("--controller", help="HOST:PORT; default: the workspace's own cluster.")
]

DEFAULT_SHARDS = 2
DEFAULT_REPLICAS = 2
JOINED_SHARD_CPUS = 1.0
"""In a Ray of several hosts, so that shards spread by what there is."""

HostOption = Annotated[str, typer.Option(help="Address to listen on.")]
ShardsOption = Annotated[int, typer.Option(min=1, help="Shards to run.")]
ReplicasOption = Annotated[
    int | None, typer.Option(min=1, help="Shards that hold each model; default: 2, or 1 of one shard.")
]
DeviceOption = Annotated[str, typer.Option(help="cpu or cuda.")]
ShardMemoryOption = Annotated[
    int, typer.Option(min=0, help="Memory for models on each shard; 0 divides most of the host's.")
]
ConsulOption = Annotated[
    str, typer.Option("--consul", help="[https://]HOST:PORT of a Consul agent; see docs/consul.md.")
]
ConsulPrefixOption = Annotated[str, typer.Option("--consul-prefix", help="Where in Consul; one per cluster.")]
ConsulCaOption = Annotated[
    Path | None, typer.Option("--consul-ca", help="PEM file of the authority of the agent's certificate.")
]
ConsulCertOption = Annotated[
    Path | None, typer.Option("--consul-cert", help="PEM file of our certificate, where the agent asks.")
]
ConsulKeyOption = Annotated[
    Path | None, typer.Option("--consul-key", help="PEM file of our certificate's key.")
]
UserStoreOption = Annotated[
    str,
    typer.Option(
        help="Folder or redis[s]://HOST:PORT of the users; see docs/users.md. Default: the workspace's."
    ),
]
UserStoreCaOption = Annotated[
    Path | None, typer.Option(help="PEM file of the authority of the certificate at rediss://.")
]
KeptEventsOption = Annotated[int, typer.Option(min=1, help="Newest events to keep of each user.")]
KeptEventIdsOption = Annotated[
    int, typer.Option(min=1_000, help="Newest ids to keep, of all, to know events that come again.")
]
AccessOption = Annotated[
    Path | None, typer.Option(help="JSON file of who may call; see docs/access.md. Default: everybody.")
]
TlsOption = Annotated[
    Path | None,
    typer.Option(help="Folder of certificates, from `headrace certs make`; see docs/access.md."),
]
RouterMtlsOption = Annotated[
    bool, typer.Option(help="Ask callers of routers for certificates, or know them by tokens alone.")
]
TrustedKeysOption = Annotated[
    Path | None,
    typer.Option(help="File of public keys; bundles that none of them has signed are refused."),
]
ReflectionOption = Annotated[bool, typer.Option(help="Describe the methods to those who may ask.")]
InsecureOption = Annotated[
    bool, typer.Option("--insecure", help="Listen beyond this host without --tls, for everybody there.")
]
PlanningOption = Annotated[
    Path | None,
    typer.Option(help="JSON file of replicas, budgets, patience; see docs/planning.md. Default: built in."),
]
ServingOption = Annotated[
    Path | None,
    typer.Option(help="JSON file of limits, retries, queues; see docs/robustness.md. Default: built in."),
]
TelemetryOption = Annotated[
    Path | None,
    typer.Option(
        help="JSON file of metrics, traces and logs; see docs/observability.md. Default: metrics on loopback."
    ),
]
RayAddressOption = Annotated[
    str, typer.Option(help="HOST:PORT of a Ray that runs already, or auto for this host's.")
]
ShardCpusOption = Annotated[
    float, typer.Option(min=0, help="Ray's logical CPUs that a shard takes of its node.")
]
GpuFractionOption = Annotated[
    float, typer.Option(min=0, help="GPU that a shard takes, 0.5 for half a one; 0 divides what Ray has.")
]
ShardLabelOption = Annotated[
    list[str] | None,
    typer.Option(help="NAME=VALUE that a Ray node must have to run shards; may be repeated."),
]

SurfaceOption = Annotated[
    str, typer.Option(help="Whose release to measure; needed if the workspace has several.")
]
DatasetOption = Annotated[
    str, typer.Option(help="movielens, online_retail or a folder of Parquet tables; default: the surface.")
]
SplitOption = Annotated[Literal["train", "valid", "test"], typer.Option(help="Which part of the queries.")]
LimitOption = Annotated[
    int, typer.Option(min=0, help="Size of the sample of queries, the same every time; 0 takes all.")
]
DataDirOption = Annotated[
    Path | None, typer.Option(envvar="HEADRACE_DATA_DIR", help="Folder that holds online_retail/.")
]
QuerySeedOption = Annotated[int, typer.Option(help="The seed that training chose the proxy queries with.")]

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]

WaitOption = Annotated[
    bool, typer.Option("--wait/--no-wait", help="Stay until it is done, or print the operation's id at once.")
]


def controller_address(given: str, workspace: Path) -> str:
    """Return the address given, or that of the workspace's cluster; raises `Unavailable` without either."""
    return given or Workspace(workspace).running().controller


def model_version(name: str) -> pb.ModelVersion:
    """Return the bundle of MODEL@VERSION; raises `InvalidInput` for what is none."""
    model, _, version = name.rpartition("@")
    if not (model and version):
        raise InvalidInput(FieldViolation("model", f"must be MODEL@VERSION, not {name!r}"))
    return pb.ModelVersion(model=model, version=version)


def consul_agent(
    address: str, prefix: str, ca: Path | None, cert: Path | None, key: Path | None
) -> dict[str, Any]:
    """Return settings for the Consul agent that the options name."""
    return {
        "consul_address": address,
        "consul_prefix": prefix,
        "consul_ca_path": absolute(ca),
        "consul_cert_path": absolute(cert),
        "consul_key_path": absolute(key),
    }


def security(
    access: Path | None,
    tls: Path | None,
    trusted_keys: Path | None,
    *,
    reflection: bool,
    insecure: bool,
    router_mtls: bool = True,
) -> dict[str, Any]:
    """Return settings for who may call, and how it is known who does."""
    return {
        "access_path": absolute(access),
        "tls_path": absolute(tls),
        "trusted_keys_path": absolute(trusted_keys),
        "router_mutual_tls": router_mtls,
        "reflection": reflection,
        "insecure": insecure,
    }


def user_store(location: str, ca: Path | None, kept_events: int, kept_event_ids: int) -> dict[str, Any]:
    """Return settings for the user store that the options name."""
    return {
        "user_store": user_store_location(location),
        "user_store_ca_path": absolute(ca),
        "kept_events": kept_events,
        "kept_event_ids": kept_event_ids,
    }


def user_store_location(given: str) -> str:
    """Return the URL, or the folder for a process that may work elsewhere; empty for none."""
    return given if "://" in given else absolute(Path(given) if given else None)


def absolute(path: Path | None) -> str:
    """Return the path for a process that may work elsewhere, empty for none."""
    return str(path.absolute()) if path else ""


def joined_ray(
    address: str, shard_cpus: float, gpu_fraction: float, labels: list[str] | None
) -> dict[str, Any]:
    """Return settings for shards on the nodes of a Ray that is not the cluster's own."""
    return {
        "ray_address": address,
        "joins_ray": True,
        "shard_host": "0.0.0.0",
        "shard_cpus": shard_cpus,
        "gpu_fraction": gpu_fraction,
        "shard_labels": shard_labels(labels),
    }


def shard_labels(given: list[str] | None) -> dict[str, str]:
    """Return the labels; raises `InvalidInput` for what is not NAME=VALUE."""
    pairs = [label.partition("=") for label in given or ()]
    for name, equals, value in pairs:
        if not (name and equals and value):
            raise InvalidInput(FieldViolation("shard-label", f"{name}{equals}{value!r} is not NAME=VALUE"))
    return {name: value for name, _, value in pairs}
