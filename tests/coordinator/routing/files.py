"""Routing files."""

EVERYTHING = """\
defaults: {cpu: 1, memory: 1Gi}
placement: spread
default_cluster: rack1
on_no_matching_rule: queue
on_no_eligible_node: queue
rules:
  - name: gpu
    match:
      job: "train_*"
      code_location: [ml, vision]
      repository: "*"
      deployment: prod
      tags: {team: "vision*", dagster/backfill: ["a", "b"]}
    clusters: {gpu-a: 3, gpu-b: 1}
    cluster_order: weighted
    spill_after: 2m
    set: {labels: "gpu=a100"}
  - name: rest
    clusters: [rack1, rack2]
queue:
  share_by: {tag: dagster/tenant}
  age_step: 5m
  limit: 100
  limit_per_share: 50
  reserve_after: 30
  reservation: 1h
quotas:
  analytics: {guaranteed: {slots: 2}, limit: {slots: 10, gpu: 2, cpu: 1.5, memory: 64Gi}}
"""
"""A file with every key."""
