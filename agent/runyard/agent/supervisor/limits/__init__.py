"""Limits of memory and CPU for a run.

    plan         limits of one attempt, and the means of enforcement
    groups       control groups of the kernel, version 1 and 2
    scope        a control group that systemd delegates
    tree         memory of a family of processes
    enforcement  enforces them: in the shim, or in the process that stands in for it

`agent/node/isolation_backends` finds out, when the agent starts, which means this machine has.
"""
