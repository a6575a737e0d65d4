"""Everything about a study: trials, the search over them, and what follows the search."""
