"""How gRPC waits for the network: on the thread that asks, or on threads of its own that hand over to it."""

import os
from importlib.metadata import version

_KNOWN_TO = "1.85."
"""The releases of grpcio whose switches these are; others complain of switches that they do not know."""

_ON_THE_ASKING_THREAD = "-event_engine_listener,-event_engine_client,-event_engine_for_all_other_endpoints"


def wait_on_the_asking_thread() -> None:
    """Spare each call some hand-overs among threads; has to be called before gRPC is first used.

    What the environment says already stays. See docs/performance.md for what it brings.
    """
    if version("grpcio").startswith(_KNOWN_TO):
        os.environ.setdefault("GRPC_EXPERIMENTS", _ON_THE_ASKING_THREAD)
