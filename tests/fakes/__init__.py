"""Stand-ins on real sockets: a scriptable upstream, a router in a process of its own, clients that misbehave."""
