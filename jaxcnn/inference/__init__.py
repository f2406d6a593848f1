"""What a trained network is used for: load, classify, segment, explain, export."""
