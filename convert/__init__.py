"""Convert PyTorch checkpoints to Orbax trees and back, proven equal layer by layer; only this package imports torch."""
