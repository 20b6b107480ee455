"""The chat page: layout, events, and how things look."""
