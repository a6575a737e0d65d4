"""Architectures and their table. Knows nothing of data or search.

Every network takes the channels of passing and failing dies, shape (N, 2, S, S), and returns logits (N, K).
"""

from models.errors import ModelError
from models.table import MODELS, Model, build_model, check_model, options_of

__all__ = ["MODELS", "Model", "ModelError", "build_model", "check_model", "options_of"]
