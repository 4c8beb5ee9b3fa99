"""Training: the asynchronous GRPO loop on AReaL, and what it is made of. Nothing below this folder imports AReaL."""
