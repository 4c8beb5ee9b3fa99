"""A place that contains untrusted Python."""
