"""HTTP calls of backends: calls that another thread can abort, deadlines, server-sent events.

The only package that imports requests and urllib3. Their exceptions do not leave it: they become errors of errors.py.
"""
