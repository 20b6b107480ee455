"""The interfaces of ragsmith: command line, HTTP API and chat page. Only this package wires the parts together."""
