"""The score that is explained: a number for each input, as a batched function with gradients."""
