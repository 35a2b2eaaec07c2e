"""The CPU default: llama.cpp's own server with a small model, in a process of its own that dies with the router.

serve -> supervisor -> llama_server. Each holds the writing end of its child's stdin and never writes: when the parent
is gone, however it went, the child reads the end of its stdin and leaves.
"""
