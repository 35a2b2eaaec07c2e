"""Virtual keys: which there are, what each has used, and what it may still use."""
