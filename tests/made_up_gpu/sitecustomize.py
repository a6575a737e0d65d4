"""Python imports this at its start in every process that has this folder on its PYTHONPATH: search then finds a GPU."""

import importlib.abc
import importlib.machinery
import sys


class AheadOfSearch(importlib.abc.MetaPathFinder):
    """Waits for the first module of ours: torch takes seconds, and Ray's own processes have no use for it."""

    def find_spec(self, name, path, target=None):
        if name not in ("search", "data_pipeline"):
            return None
        sys.meta_path.remove(self)
        import made_up_gpu

        made_up_gpu.plug_in()
        return importlib.machinery.PathFinder.find_spec(name, path, target)


if __name__ == "sitecustomize":  # and not where pytest looks for doctests
    sys.meta_path.insert(0, AheadOfSearch())
