"""Ray Serve with the application, on a Ray of its own: `ray_serve_process WORKSPACE RELEASE REPLICAS`.

Prints the addresses of its gRPC ingress on a line of JSON and serves until its standard input ends. With
RAY_SERVE_THROUGHPUT_OPTIMIZED=1 in the environment there is no proxy in the way: the replicas of the ingress
listen themselves, each on a port of its own, and deployments call each other by gRPC.
"""

import json
import sys
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.serve._private.common import RequestProtocol
from ray.serve._private.constants import RAY_SERVE_ENABLE_DIRECT_INGRESS
from ray.serve.config import HTTPOptions, gRPCOptions

from deploy.release_files import read_release_file
from deploy.workspace import Workspace
from tests.bench.ray_application import Served, application
from tests.services.debian_packages import free_ports

_ADD_SERVICER = "tests.bench.ray_servicer.add_SearchServiceServicer_to_server"
_NAME = "search"
_CPUS = 8
"""More logical ones than there are cores, as none of the actors keeps one busy for itself."""


def main() -> None:
    """Serve until told to end."""
    workspace, release_path, replicas = sys.argv[1:]
    folders = Workspace(Path(workspace))
    http_port, grpc_port = free_ports(2)
    ray.init(num_cpus=_CPUS, include_dashboard=False, log_to_driver=False)
    serve.start(
        http_options=HTTPOptions(port=http_port),
        grpc_options=gRPCOptions(port=grpc_port, grpc_servicer_functions=[_ADD_SERVICER]),
    )
    served = Served(
        release=read_release_file(Path(release_path)),
        models_dir=folders.models_dir.absolute(),
        users_path=folders.users_path.absolute(),
    )
    serve.run(application(served, int(replicas)), name=_NAME, route_prefix="/search")
    addresses = _ingress_addresses() if RAY_SERVE_ENABLE_DIRECT_INGRESS else [f"127.0.0.1:{grpc_port}"]
    sys.stdout.write(json.dumps(addresses) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    ray.shutdown()


def _ingress_addresses() -> list[str]:
    """Return where the ingress replicas listen, which Ray Serve tells load balancers."""
    client: Any = serve.context._get_global_client()
    groups = ray.get(client._controller.get_target_groups.remote(_NAME))
    return [
        f"127.0.0.1:{target.port}"
        for group in groups
        if group.protocol == RequestProtocol.GRPC
        for target in group.targets
    ]


if __name__ == "__main__":
    main()
