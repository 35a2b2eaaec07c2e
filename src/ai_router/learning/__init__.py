"""Making and measuring the head: reading examples, fitting, calibrating, evaluating, distilling, replaying."""
