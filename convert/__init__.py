"""PyTorch checkpoints to Orbax trees and back, proven equal layer by layer. The only room that imports torch."""
