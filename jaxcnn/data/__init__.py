"""Where images come from: the embedded phantom, the prepared scans, the input pipeline."""
