"""Rules for arguments of `containers.create`, without importing the `docker` package."""

import posixpath
from collections.abc import Mapping, Sequence
from typing import Any, Final

_CONFLICTS: Final = {
    "image": "use the key `image`, or the run's tag runyard/image",
    "environment": "use the key `env_vars`",
    "network": "use the key `networks`",
    "name": "Runyard names its containers after their attempts; leave it out",
    "command": "Runyard sets it; leave it out, or use `entrypoint`",
    "detach": "Runyard sets it; leave it out",
    "restart_policy": "a container that is restarted would run its job twice; leave it out",
    "tty": "a worker has no terminal; leave it out",
    "stdin_open": "a worker has no terminal; leave it out",
}
"""Arguments that Runyard, and some also Dagster's own launcher, sets itself; each with the alternative."""

IGNORED: Final = frozenset({"auto_remove", "remove", "stop_timeout"})
"""Arguments without effect, accepted because settings for Dagster's launcher may contain them.

Containers are removed after their outcome is known, and the run sets the grace period.
"""

HARMLESS: Final = frozenset(
    {
        *("blkio_weight", "cap_drop", "cpu_count", "cpu_percent", "cpu_period", "cpu_quota", "cpu_shares"),
        *("cpuset_cpus", "cpuset_mems", "dns", "dns_opt", "dns_search", "domainname", "entrypoint"),
        *("extra_hosts", "healthcheck", "hostname", "init", "kernel_memory", "labels", "mac_address"),
        *("mem_limit", "mem_reservation", "mem_swappiness", "memswap_limit", "nano_cpus"),
        *(
            "network_disabled",
            "pids_limit",
            "platform",
            "read_only",
            "shm_size",
            "stop_signal",
            "storage_opt",
        ),
        *("tmpfs", "ulimits", "working_dir", *IGNORED),
    }
)
"""Arguments that affect only the container itself, so that no rule is needed."""


def conflicting_kwargs(kwargs: Mapping[str, Any]) -> dict[str, str]:
    """Return the arguments that cannot be used, each with the alternative."""
    return {name: remedy for name, remedy in _CONFLICTS.items() if name in kwargs}


def volume_list(volumes: object) -> list[str]:
    """Convert volumes to the form `source:target[:mode]`, from either form of the `docker` package.

    Raises:
        ValueError: They have another form.
    """
    if isinstance(volumes, Mapping):
        return [_bind(str(source), entry) for source, entry in volumes.items()]
    if isinstance(volumes, Sequence) and not isinstance(volumes, str):
        return [str(volume) for volume in volumes]
    raise ValueError('volumes: write ["/data:/data:ro"], or {"/data": {"bind": "/data", "mode": "ro"}}')


def label_map(labels: object) -> dict[str, str]:
    """Convert labels to a mapping, from either form of the `docker` package.

    Raises:
        ValueError: They have another form.
    """
    if isinstance(labels, Mapping):
        return {str(name): str(value) for name, value in labels.items()}
    if isinstance(labels, Sequence) and not isinstance(labels, str):
        return {str(name): "" for name in labels}
    raise ValueError('labels: write {"team": "etl"}, or ["team"]')


def mount_sources(kwargs: Mapping[str, Any]) -> list[str]:
    """Return the folders of this machine and the volumes that arguments of `containers.create` mount.

    Raises:
        ValueError: They have another form.
    """
    sources = []
    for volume in volume_list(kwargs.get("volumes") or []):
        source, colon, _ = volume.partition(":")
        if colon:  # without one it is a fresh volume of the container's own
            sources.append(_plain(source))
    for mount in mounts_of(kwargs):
        if mount.get("Type") != "tmpfs" and mount.get("Source"):
            sources.append(_plain(str(mount["Source"])))
    return sources


def mounts_of(kwargs: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the argument `mounts` of `containers.create`.

    Raises:
        ValueError: It has another form.
    """
    mounts = kwargs.get("mounts") or []
    if not isinstance(mounts, list) or not all(isinstance(mount, Mapping) for mount in mounts):
        raise ValueError("container_kwargs mounts: must be mappings with Type, Source and Target")
    return mounts


def _bind(source: str, entry: object) -> str:
    if not isinstance(entry, Mapping) or "bind" not in entry:
        raise ValueError(f'volumes: {source}: write {{"bind": "/in/the/container", "mode": "rw"}}')
    return f"{source}:{entry['bind']}:{entry.get('mode') or 'rw'}"


def _plain(source: str) -> str:
    """Return the normalized path, so that it cannot pass for another one."""
    return f"/{posixpath.normpath(source).lstrip('/')}" if source.startswith("/") else source
