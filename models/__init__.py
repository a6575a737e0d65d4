"""Architectures and their table. Knows nothing of data or search.

Every network takes the channels of passing and failing dies, shape (N, 2, S, S), and returns logits (N, K).
"""

from models.table import MODELS, Model, ModelError, build_model, check_model

__all__ = ["MODELS", "Model", "ModelError", "build_model", "check_model"]
