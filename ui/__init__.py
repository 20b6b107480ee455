"""The faces of ragsmith: command line, HTTP API and chat page. The only package that wires the parts together."""
