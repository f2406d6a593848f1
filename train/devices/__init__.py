"""Where a run takes place: devices, processes, and what they must agree on."""
