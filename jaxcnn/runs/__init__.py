"""Read and write what a run keeps on disk, such as its folder and checkpoints, completely or not at all."""
