"""The driver for containers of a Docker engine, or of Podman behind its Docker-compatible socket.

    settings, context, allow, plan    from the agent's settings and a launch to what the container is to be
    engine, images, delivery          the engine's API; getting the image; handing over the worker's arguments
    enter                             the first program in the container
    driver, supervisor, container       seeing every attempt through to its outcome
    output, copying, events           beside that: the output, and the engine's events
    usage, cleaning                   measurements, and removal
    watchdog                            a program that keeps deadlines while the agent is dead

Only `engine` and what stands on it need the `docker` package; the agent loads them if its settings have a
`docker` section.
"""
