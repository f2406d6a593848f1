"""What a network has to beat: the label of the most similar training image, and a linear model on gradients."""
