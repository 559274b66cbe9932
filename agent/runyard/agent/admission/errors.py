"""Reasons to reject an assignment."""

DISK_FULL = "disk_full"
"""Reason code of every rejection on a node whose disk is nearly full."""


class NotAdmitted(Exception):
    """The attempt is rejected.

    Args:
        message: One sentence for people.
        reason_code: One word for programs, as in `runyard.v1.Rejection`; may be empty.
    """

    def __init__(self, message: str, reason_code: str = "") -> None:
        super().__init__(message)
        self.reason_code = reason_code


class UnusableLaunch(NotAdmitted):
    """This agent cannot make a worker of the launch."""


class NotAuthorized(UnusableLaunch):
    """The owner of this node does not allow the launch; the message names the rule."""


class Unfit(NotAdmitted):
    """This node cannot start the worker at the moment."""
