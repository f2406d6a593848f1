"""From the bytes of a file to grey images: one format a file, and one table of all of them."""
