"""Authorization of launches: limits what a compromised coordinator can do on this node.

signatures   verify that a launch is unchanged since a trusted launcher signed it
requested    extract the access that a launch requests
environment  names of variables that can make another program run
policy       decide whether the owner's policy allows the access
authorizer   all steps in order
"""
