"""What a run leaves on the disk: its folder, its checkpoints, and how they are written whole or not at all."""
