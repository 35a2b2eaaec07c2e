"""Telling what happened: the log lines of the contract and where they go. Nothing here decides anything."""
