"""A caller who means no harm and searches all the while: what it was not given is counted."""

import json
import threading
import time

import grpc

from protos.headrace.v1 import search_service_pb2, search_service_pb2_grpc

_EVERY_S = 0.05
_TIMEOUT_S = 5.0
RETRIES = json.dumps(
    {
        "methodConfig": [
            {
                "name": [{"service": "headrace.v1.SearchService"}],
                "retryPolicy": {
                    "maxAttempts": 4,
                    "initialBackoff": "0.05s",
                    "maxBackoff": "0.5s",
                    "backoffMultiplier": 2,
                    "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
                },
            }
        ]
    }
)


class Bystander:
    """Searches from `with` on over one connection, and retries as docs/releases.md says that callers may.

    `failures` are statuses and texts.
    """

    def __init__(self, address: str, surface: str = "gifts", query: str = "mug") -> None:
        self.answered = 0
        self.failures: list[str] = []
        self.longest_s = 0.0
        self._address = address
        self._request = search_service_pb2.SearchRequest(surface=surface, query=query)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._search, daemon=True)

    def __enter__(self) -> "Bystander":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(2 * _TIMEOUT_S)

    def _search(self) -> None:
        options = [("grpc.use_local_subchannel_pool", 1), ("grpc.service_config", RETRIES)]
        with grpc.insecure_channel(self._address, options=options) as channel:
            stub = search_service_pb2_grpc.SearchServiceStub(channel)
            while not self._stop.wait(_EVERY_S):
                began_s = time.monotonic()
                try:
                    response = stub.Search(self._request, timeout=_TIMEOUT_S)
                except grpc.RpcError as error:
                    self.failures.append(f"{error.code()}: {error.details()}")
                    continue
                if not response.items:
                    self.failures.append("no items")
                self.answered += 1
                self.longest_s = max(self.longest_s, time.monotonic() - began_s)
