"""Reading: the span of a passage that answers a question, and how probably there is one."""
