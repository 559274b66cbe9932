"""What this node believes and does for whoever controls its coordinator: as little as its owner says.

profiles     the owner's settings
policy       decides: a launch and the owner's policy give Allowed or Refused
asking       from a launch and the agent's settings to what the policy decides on
environment  names of variables by which another program can be made to run
sockets      where engines listen for whom may own the machine
signatures   whether a launch is its launcher's own word
gatekeeper   all of it in order, for the runtime
"""
