"""Training: configuration, state, step, loop."""
