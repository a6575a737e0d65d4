"""After the search: the final training, its model file, and the locked test."""
