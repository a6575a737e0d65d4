"""Spaces that come with the project; `--space NAME` finds them from any folder."""
