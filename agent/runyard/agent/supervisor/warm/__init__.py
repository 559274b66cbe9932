"""Warm servers: interpreters that have imported what runs need, and fork a shim and its worker for each.

    boot         the way in: run by the environment's own interpreter, loads the rest unseen by the workers
    plan         what one server is for: interpreter, directory, environment, what to import
    preload      imports it
    fitness      finds what a fork cannot carry over: threads, connections, shared memory
    freshness    finds out that what was imported has changed since
    randomness   keeps forks from drawing the same numbers
    rebirth      turns a fork into what a new interpreter would be
    rehearsal    has a run of no consequence make what is made once
    commandline  has /proc show a fork as what it has become
    steps        forks the processes of Dagster's steps
    server       answers the fork server

All of it but `plan` runs only there. Standard library only, any Python from 3.10 on, and no package of ours
is needed in that environment: one that is installed there is another one, and workers get that.
"""
