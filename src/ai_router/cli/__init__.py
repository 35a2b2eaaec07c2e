"""The command ``ai-router``; main.py puts its parts together."""
