"""Events: one module per source, one function per thing that can happen.

    event                                function                          module
    a client launches a run              on_launch                         on_launch
    a client ends a run                  on_terminate                      on_launch
    the reporter settles outcomes        on_reports_settled                on_launch
    an agent opens a session             on_hello                          on_session
    an agent sends a heartbeat           on_heartbeat                      on_session
    an agent reports one attempt         on_status                         on_session
    an agent rejects an assignment       on_rejection                      on_session
    an agent leaves, or its stream ends  on_goodbye, on_disconnect         on_session
    an operator acts on a node           on_cordon, on_uncordon, on_drain  on_operator
    an operator fences or revokes it     on_fence, on_revocation           on_operator
    an operator refreshes warm servers   on_refresh_warm_servers           on_warm_servers
    the routing file changes             on_config_change                  on_config_change
    time passes                          on_tick, forget_old               on_tick

Each takes the fleet, the time if it matters, and the event. It changes the fleet and leaves effects in it:
rows to save, messages to send. Shared steps are `place_waiting`, `on_attempt_status`, `attempt_end` and
`agent_messages`.
"""
