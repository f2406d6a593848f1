"""PyTorch checkpoints to Orbax trees, proven equal block by block. The only room that imports torch."""
