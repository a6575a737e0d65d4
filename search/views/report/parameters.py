"""Parameters: which mattered, how scores lie along each, and where the space should be widened or thinned."""

from collections.abc import Mapping

from search.space.space import Choice, Node, Range
from search.study.hindsight import find_edge
from search.study.importance import Importances, measure_importance
from search.trial.vocabulary import Scalar
from search.views.figures import draw_importance, draw_parallel, draw_slice
from search.views.report.album import Album
from search.views.report.facts import Facts
from search.views.report.markup import Html, join, listing, paragraph, tag
from search.views.report.phrases import enumerate_words, values_in_words
from search.views.words import count, number

_TOP, _MOST_SLICES, _MOST_AXES = 5, 24, 10
_ENOUGH_FOR_DEAD = 30  # ended trials
_ENOUGH_FOR_EDGE = 3  # trials that ran to their end


def write_parameters(facts: Facts, album: Album) -> Html:
    """Write importance, warnings, slices and parallel coordinates."""
    parameters = facts.space.parameters()
    if not parameters or not any(record.reports for record in facts.trials):
        return Html("")
    found = measure_importance(facts.folder)
    places = {each.name: place for place, each in enumerate(found.parameters)}
    tried = {name for record in facts.trials if record.reports for name in record.config}
    names = sorted((name for name in parameters if name in tried), key=lambda name: places.get(name, len(places)))
    return join(
        _importance(found, album),
        _warnings(facts, found),
        tag("h3", "Along each parameter"),
        _slices(facts, names[:_MOST_SLICES], album),
        tag("h3", "All together"),
        _parallel(facts, names, album),
    )


def _importance(found: Importances, album: Album) -> Html:
    if not found.parameters:
        return paragraph(tag("b", "Importance: not measured. "), f"{found.why_not[:1].upper()}{found.why_not[1:]}.")
    text = (
        f"PED-ANOVA (Optuna): how differently the values are spread among the best {found.n_top} of {found.n_ended} "
        "trials that ended than among all; stopped and infeasible ones count as not among the best. A parameter of one "
        "branch is compared within it and weighs as much as the trials that have it. The black stroke is what chance "
        "gives: the scores dealt to the trials at random stay below it in 19 of 20 deals. Floors are not seen."
    )
    figure = album.show("importance", draw_importance(found), words="importance of each parameter", class_="medium")
    return join(figure, paragraph(text, class_="small"))


def _warnings(facts: Facts, found: Importances) -> Html:
    items = [*edge_warnings(facts), *_dead(found)]
    return tag("div", tag("h3", "Worth a look"), listing(items), class_="belief") if items else Html("")


def edge_warnings(facts: Facts) -> list[str]:
    """Say which values of the best trial lie at the edge of what could be tried."""
    leader = facts.leader
    if leader is None:
        return []
    warnings = []
    for name, node in facts.space.parameters().items():
        value = leader.config.get(name)
        edge = find_edge(node, value)
        if edge is None or value is None:
            continue
        top = [record for record in facts.ranked[:_TOP] if name in record.config]
        if len(top) < _ENOUGH_FOR_EDGE:
            continue
        n_there = sum(find_edge(node, record.config[name]) == edge for record in top)
        remedy = "widen it" if isinstance(node, Range) else f"try {'larger' if edge == 'high' else 'smaller'} ones"
        end = "upper" if edge == "high" else "lower"
        warnings.append(
            f"{name} of the best, {number(value)}, is at the {end} edge of what could be tried "
            f"({values_in_words(node)}), as in {n_there} of the best {len(top)}: {remedy} next time."
        )
    return warnings


def _dead(found: Importances) -> list[str]:
    """Name parameters that do not show to matter, with care: enough trials, and only against chance."""
    quiet = [each for each in found.parameters if not each.stands_out]
    if found.n_ended < _ENOUGH_FOR_DEAD or not quiet:
        return []
    listed = enumerate_words([f"{each.name} ({100 * each.share:.1f} %, n = {each.n})" for each in quiet])
    return [
        f"No difference shows for {listed}: no more importance than chance gives, among {found.n_ended} ended "
        "trials. That is no proof that there is none, but fixing one of them costs little."
    ]


def _slices(facts: Facts, names: list[str], album: Album) -> Html:
    parameters = facts.space.parameters()
    figures = [
        album.show(
            f"slice_{name.replace('.', '_')}",
            draw_slice(name, parameters[name], facts.trials, metric=facts.metric, best=facts.leader),
            words=f"objective along {name}",
        )
        for name in names
    ]
    left = len([name for name in parameters if name not in names])
    more = f" {count(left, 'more parameter')} left out." if left and len(names) == _MOST_SLICES else ""
    note = (
        "Blue ran to their end, pale ones were stopped (shown as they stood then; triangles lie below), the ring is "
        f"the best. The most important first.{more}"
    )
    return join(paragraph(note, class_="small"), tag("div", *figures, class_="grid"))


def _parallel(facts: Facts, names: list[str], album: Album) -> Html:
    axes = _merge_branches(facts, names)
    kept = dict(list(axes.items())[:_MOST_AXES])
    note = (
        "One line for each trial, the best in vermillion, the others from pale to dark by score, stopped ones grey. "
        "Parameters of the same name in several branches share an axis; below an axis run the trials that lack it."
    )
    png = draw_parallel(kept, facts.trials, metric=facts.metric, best=facts.leader)
    figure = album.show("parallel", png, words="all parameters of each trial", class_="broad")
    return join(tag("div", figure, class_="scroll", tabindex="0"), paragraph(note, class_="small"))


def _merge_branches(facts: Facts, names: list[str]) -> dict[str, tuple[Node, Mapping[int, Scalar]]]:
    """Put parameters that are one field in several branches, such as lr, onto one axis if they fit together."""
    parameters = facts.space.parameters()
    groups: dict[tuple[str, str], list[str]] = {}
    for name in names:
        groups.setdefault((name.split(".")[0], name.rpartition(".")[2]), []).append(name)
    leaves = [leaf for _, leaf in groups]
    axes: dict[str, tuple[Node, Mapping[int, Scalar]]] = {}
    for (choice, leaf), group in groups.items():
        node = _merge([parameters[name] for name in group])
        parts = [[name] for name in group] if node is None else [group]
        for part in parts:
            label = leaf if leaves.count(leaf) == 1 else f"{choice} {leaf}"
            label = part[0] if node is None and len(group) > 1 else label
            values = {r.number: r.config[name] for r in facts.trials for name in part if name in r.config}
            axes[label] = (node or parameters[part[0]], values)
    return axes


def _merge(nodes: list[Node]) -> Node | None:
    """Return what all of them fit on; None if they differ in kind."""
    first = nodes[0]
    if all(node == first for node in nodes):
        return first
    ranges = [node for node in nodes if isinstance(node, Range)]
    if len(ranges) == len(nodes) and len({node.log for node in ranges}) == 1:
        return Range(min(node.low for node in ranges), max(node.high for node in ranges), ranges[0].log)
    choices = [value for node in nodes if isinstance(node, Choice) for value in node.values]
    numbers = [value for value in choices if isinstance(value, int | float) and not isinstance(value, bool)]
    if numbers and len(numbers) == len(choices) and all(isinstance(node, Choice) for node in nodes):
        return Choice(tuple(sorted(set(numbers))))
    return None
