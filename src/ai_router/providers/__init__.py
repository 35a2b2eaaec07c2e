"""What the router knows about backends: which there are, how to phrase a request for each, what their answers mean.

No network: the only file that is read is the catalogue, at the start.
"""
