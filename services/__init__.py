"""gRPC shells around the core: servicers, server chassis, status mapping, stores."""
