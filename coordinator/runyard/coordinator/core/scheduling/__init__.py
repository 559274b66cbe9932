"""Scheduling: which waiting run gets which node, and in which order.

Known parts, under their usual names:

- *Node classes* (Nomad's computed classes): nodes that differ in amounts alone share a `NodeClass`, so each
  static filter runs once per class. In a class, nodes with equal free resources share a `CapacityBucket`.
- *Filter, then score* (Kubernetes): `filters` exclude nodes, `scores` rank the others, and `node_search`
  picks the best.
- *Equivalence classes* (Borg): waiting runs with the same `EquivalenceKey` are one class. If its first run
  finds no node, no other does, so one search serves all. A blocked class is tried again only on nodes freed
  since.
- *Fair shares* (dominant resource fairness, DRF): usage is the sum of dominant shares, the largest fraction
  of the fleet that a run takes of any resource. The share with the least usage is served first, after
  guarantees and priority.
- *Backfill with reservations* (Slurm): smaller runs pass a run that does not fit. Once that run has starved
  for long enough, one node is reserved for it.

The way of one run: `run_queue` holds it, `scheduling_pass` returns its class, `node_search` finds the node.
"""
