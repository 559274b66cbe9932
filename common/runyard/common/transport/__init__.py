"""Connections between Runyard's processes: addresses, gRPC channels, TLS files."""
