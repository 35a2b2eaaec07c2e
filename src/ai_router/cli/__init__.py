"""The command line; main.py puts it together."""
