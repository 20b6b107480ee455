"""Causal language models in this process, on OpenVINO GenAI or torch."""
