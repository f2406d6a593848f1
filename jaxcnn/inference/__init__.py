"""Use a trained network: load, classify, segment, explain, export."""
