"""What a trained classifier is used for: predictions of files, and one file to be used elsewhere."""
