"""Training: the asynchronous GRPO loop, and what it is made of. Only here is AReaL imported, and only in `host/` is it
known from the inside; below this folder the tools of utils/ may use it too."""
