"""Training: from files of text to a model that works, and the losses that attention can have."""
