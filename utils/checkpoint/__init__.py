"""`python -m utils.checkpoint`: published checkpoints in and out."""
