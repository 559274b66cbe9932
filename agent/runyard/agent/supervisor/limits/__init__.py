"""Limits of memory and CPU for a run.

    plan         what is to be enforced for one attempt, and by what
    groups       control groups of the kernel, version 1 and 2
    scope        has systemd delegate a control group
    tree         how much memory a family of processes takes
    enforcement  does it: in the shim, or in the process that stands in for it
    ladder       finds out, when the agent starts, what this machine can do

All but `ladder` is standard library only: shims live on it, also those that a warm server forks.
"""
