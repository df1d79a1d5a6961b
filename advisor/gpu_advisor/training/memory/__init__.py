"""Keeps a training job within its memory: what is used, what can be done about it, and going on after an error."""
