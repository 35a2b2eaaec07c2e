"""Talking HTTP to backends: sockets that another thread can shut, deadlines, server-sent events.

The only package that imports requests and urllib3. Nothing below errors.py is imported from here, and no
foreign exception leaves it.
"""
