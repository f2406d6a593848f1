"""This project and its peers, side by side.

The rooms don't import one another. This one is there to put them next to each other: it takes the training step from
`train` and the PyTorch networks from `convert`, and no room imports it.
"""
