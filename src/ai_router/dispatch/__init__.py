"""From a decision to the answer: speculation, plan, web search, calls of backends, reply, and the request's record."""
