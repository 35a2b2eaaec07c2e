"""The embedded model: llama.cpp's own server with a small model on this CPU, for when no PRIMARY_URL is set.

Three processes: ``serve`` starts a supervisor, which starts the server. Each holds the writing end of its child's stdin
and never writes. When a parent ends, in whatever way, its child reads the end of its stdin and ends too.
"""
