"""The gRPC services, behind one gate.

gate                        authenticates and authorizes every call; errors become a status there
errors                      the status of every error
launch, fleet, agents       LaunchService, FleetService, AgentService
security, join              SecurityService, and JoinService for nodes without a certificate
requests, layers, dry_run   validation of requests, and their conversion to types of the core
views                       conversion of the core's state to responses
snapshots, snapshot_uploads job snapshots
log_relay, reporter_queue   streams of logs and of outcomes
listening                   options and addresses of the servers
"""
