"""What serves models on this machine, and what the router could make of it."""
