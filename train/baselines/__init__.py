"""Baselines that a network has to beat: the most similar training image, and a linear model on gradients."""
