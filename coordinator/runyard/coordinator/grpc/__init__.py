"""The gRPC services: they check what comes in, ask the core, and write down its answer."""
