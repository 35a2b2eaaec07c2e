"""What several processes of one router share, through Redis or Valkey: small values, questions and notices.

Without them each process decides for itself, which is all that a single one needs.
"""
