"""Language models that run in this process: any causal model of transformers, and exports for CTranslate2."""
