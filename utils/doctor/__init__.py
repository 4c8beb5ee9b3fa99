"""`python -m utils.doctor`: what would fail later, and what a run will cost."""
