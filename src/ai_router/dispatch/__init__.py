"""Carrying a decision out: speculate, forward, enrich, relay, cancel; and telling the outcome once."""
