"""`headrace controller`: one controller in the foreground, over a Ray that runs already."""

from contextlib import ExitStack
from typing import Annotated

import typer

from deploy import controller_process, foreground
from deploy.commands import options
from deploy.commands.options import DEFAULT_WORKSPACE, WorkspaceOption
from deploy.commands.up import cluster_settings
from deploy.ray_node import ray_node
from services.telemetry_settings import CONTROLLER

DEFAULT_PORT = 50052


def controller(
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
    ray_address: options.RayAddressOption = "auto",
    join_ray: Annotated[
        bool, typer.Option(help="Make this host a node of that Ray, without resources, where it is none.")
    ] = False,
    host: options.HostOption = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any.")] = DEFAULT_PORT,
    shards: options.ShardsOption = options.DEFAULT_SHARDS,
    replicas: options.ReplicasOption = None,
    device: options.DeviceOption = "cpu",
    shard_memory_mb: options.ShardMemoryOption = 0,
    shard_cpus: options.ShardCpusOption = options.JOINED_SHARD_CPUS,
    gpu_fraction: options.GpuFractionOption = 0.0,
    shard_label: options.ShardLabelOption = None,
    consul: options.ConsulOption = "",
    consul_prefix: options.ConsulPrefixOption = "headrace",
    consul_ca: options.ConsulCaOption = None,
    consul_cert: options.ConsulCertOption = None,
    consul_key: options.ConsulKeyOption = None,
    access: options.AccessOption = None,
    tls: options.TlsOption = None,
    trusted_keys: options.TrustedKeysOption = None,
    reflection: options.ReflectionOption = True,
    insecure: options.InsecureOption = False,
    planning: options.PlanningOption = None,
    serving: options.ServingOption = None,
    telemetry: options.TelemetryOption = None,
) -> None:
    """Run a controller until SIGTERM or Ctrl-C; its shards live on in Ray, and the next one finds them.

    Prints READY controller=HOST:PORT. Several share a workspace or not, but always a Consul.
    """
    settings = cluster_settings(
        workspace,
        shards=shards,
        replicas=replicas,
        host=host,
        controller_port=port,
        device=device,
        shard_memory_bytes=shard_memory_mb * 2**20,
        planning_path=options.absolute(planning),
        serving_path=options.absolute(serving),
        telemetry_path=options.absolute(telemetry),
        supervised=False,
        **options.joined_ray(ray_address, shard_cpus, gpu_fraction, shard_label),
        **options.security(access, tls, trusted_keys, reflection=reflection, insecure=insecure),
        **options.consul_agent(consul, consul_prefix, consul_ca, consul_cert, consul_key),
    )
    foreground.log_to_stderr(settings, CONTROLLER)
    settings.folders.state_dir.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        if not consul:  # Without an election, the workspace's lock keeps a second controller out.
            held.enter_context(settings.folders.claim())
        if join_ray:
            held.enter_context(ray_node(ray_address))
        controller_process.join_ray(settings)
        foreground.run("controller", settings, controller_process.serve)
