"""Warm servers: interpreters that have imported what runs need, and fork a shim and its worker for each.

    boot              entry point: run by the environment's own interpreter, hides the rest from the workers
    plan              plan of one server: interpreter, directory, environment, modules to import
    preload           imports the modules of the plan
    fork_safety       finds what a fork cannot inherit: threads, connections, shared memory
    change_detection  detects that imported files have changed since
    randomness        gives each fork its own random numbers
    become_worker     turns a fork into the program that a new interpreter would run
    warm_up_run       executes a throw-away run, so that Dagster creates its caches before the first fork
    commandline       makes /proc show a fork's own command and environment
    steps             forks the processes of Dagster's steps
    server            answers the fork server's requests

Everything but `plan` runs in warm servers only. Standard library only, any Python from 3.10 on. Runyard need
not be installed in that environment. If another version of it is, the workers import that one.
"""
