"""Deciding where a request goes: the model it names, META tasks, the decision cache, the head, the classifier.

``router.Router`` is the way in. Deciding answers nothing and changes nothing of the request. It remembers decisions,
labels of turns and comparisons of head and classifier, and logs when head or classifier change their state.
"""
