"""The networks: an architecture a file, the blocks they share, and the table that names them."""
