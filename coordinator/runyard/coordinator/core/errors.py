"""Errors of the core.

    FleetError
    ├── InvalidField         a field of the request cannot be right
    ├── LaunchConflict       the same launch key with another content
    ├── LaunchRefused        the launch cannot be taken now or ever
    ├── QueueFull            the queue is at its limit
    ├── NotAllowed           the client is bound to clusters or runs, and this is outside its scope
    ├── NodeRefused          the agent may not join
    │   └── NodeIdInUse      another agent holds the node ID
    ├── UnknownNode          the node never joined
    ├── UnknownWarmServer    the node has no such warm server
    ├── NodeIsSilent         the node is not in session, so it cannot be asked for anything
    └── NodeStillSpeaks      the node is not off, whatever the operator says

Each carries one sentence for the caller that says what is wrong and what to do.
"""


class FleetError(Exception):
    """Base of everything that the core refuses."""


class InvalidField(FleetError):
    """A field of the request cannot be right.

    Args:
        field: Name of the field, as in the .proto file.
        problem: What is wrong with it and what would be right.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")


class LaunchConflict(FleetError):
    """This run ID and resume number were launched before with another content."""


class LaunchRefused(FleetError):
    """The launch cannot be taken as it is."""


class NotAllowed(FleetError):
    """The client may not do this."""


class QueueFull(FleetError):
    """The queue is at its limit."""


class NodeRefused(FleetError):
    """The agent may not join."""


class NodeIdInUse(NodeRefused):
    """Another agent holds the node ID."""


class UnknownNode(FleetError):
    """The node never joined."""


class UnknownWarmServer(FleetError):
    """The node has no such warm server."""


class NodeIsSilent(FleetError):
    """The node is not in session."""


class NodeStillSpeaks(FleetError):
    """The node is in session."""
