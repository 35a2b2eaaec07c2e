"""The classification head: decides in this process what is plain, and abstains from the rest.

A linear model over hashed n-grams of words, and a small transformer encoder for what that is unsure of. "Head" means
these two together with their calibration, nothing else.
"""
