"""Everything that knows AReaL from the inside."""
