"""Identity of this agent in its sessions."""

from dataclasses import dataclass

from runyard.agent.node.installation import Installation


@dataclass(frozen=True)
class SessionIdentity:
    """Identity of this agent in all its sessions."""

    installation: Installation
    instance_id: str
    """Made for each process of the agent."""
    boot_id: str
