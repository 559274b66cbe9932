"""The runtime: owns the state, applies the core's decisions, and sends their effects."""
