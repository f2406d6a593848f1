"""Pictures: made from run folders and from images, never from the training code."""
