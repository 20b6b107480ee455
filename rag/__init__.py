"""From documents to a grounded answer: loading, indexing, retrieval, the chain, and its traces."""
