"""The durable account: runs with their history, nodes, tombstones and job snapshots."""
