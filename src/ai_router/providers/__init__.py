"""What the router knows about backends: which there are, how to phrase a request for each, what their answers mean.

Pure: no I/O here.
"""
