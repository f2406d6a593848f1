"""Convert PyTorch checkpoints to Orbax trees and prove them equal block by block. Only this package imports torch."""
