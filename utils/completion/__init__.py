"""`python -m utils.completion`: a script with which bash completes commands, configuration files and keys."""
