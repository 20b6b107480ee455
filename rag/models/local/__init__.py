"""Local language models: causal models of transformers, and exports for CTranslate2."""
