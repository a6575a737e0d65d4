"""Pictures as PNG, each with its units and how many it shows: for the page, for slides, for model folders."""

from search.views.figures.decisions import draw_escapes, draw_reliability
from search.views.figures.parameters import draw_importance, draw_parallel, draw_slice
from search.views.figures.search import draw_all_curves, draw_course, draw_survival
from search.views.figures.training import draw_accuracy, draw_confusion, draw_curves, draw_f1, draw_loss
from search.views.figures.wafers import draw_map, draw_wafers

__all__ = [
    "draw_escapes",
    "draw_reliability",
    "draw_importance",
    "draw_parallel",
    "draw_slice",
    "draw_all_curves",
    "draw_course",
    "draw_survival",
    "draw_accuracy",
    "draw_confusion",
    "draw_curves",
    "draw_f1",
    "draw_loss",
    "draw_map",
    "draw_wafers",
]
