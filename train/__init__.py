"""Train networks: options, state, step, loop."""
