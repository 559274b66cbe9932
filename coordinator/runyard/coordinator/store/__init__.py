"""Durable state in SQLite: runs with their history, nodes, tombstones, job snapshots and CA records."""
