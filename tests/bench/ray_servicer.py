"""What Ray Serve's proxy is told of `SearchService`: `gRPCOptions(grpc_servicer_functions=…)` names it.

Ray Serve pickles requests on their way from the proxy to the ingress, and pickle looks a message's class up
under the name that protoc gave its module, not where the module is.
"""

import sys

import protos.headrace
import protos.headrace.v1
from protos.headrace.v1 import search_service_pb2
from protos.headrace.v1.search_service_pb2_grpc import add_SearchServiceServicer_to_server

sys.modules.setdefault("headrace", protos.headrace)
sys.modules.setdefault("headrace.v1", protos.headrace.v1)
sys.modules.setdefault("headrace.v1.search_service_pb2", search_service_pb2)

__all__ = ["add_SearchServiceServicer_to_server"]
