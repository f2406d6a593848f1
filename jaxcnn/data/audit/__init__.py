"""Find copies of images in any data set, and report them."""
