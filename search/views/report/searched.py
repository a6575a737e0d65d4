"""What was searched, on what data, and under which rules."""

from search.study.rows import TrialRecord
from search.trial.vocabulary import Scalar
from search.views.report.album import Album
from search.views.report.facts import Facts
from search.views.report.markup import Html, join, listing, paragraph, table, tag
from search.views.report.phrases import NOTHING, percent, values_in_words
from search.views.words import count, duration, number

_SAMPLERS = {
    "tpe": "TPE",
    "gp": "a Gaussian process",
    "tpe_gp": "TPE, later with a Gaussian process",
    "random": "chance",
    "qmc": "a Sobol sequence",
}


def write_searched(facts: Facts, album: Album) -> Html:
    """Write the data, the space, the objective and the constraints."""
    return join(_data(facts), _rules(facts), _space(facts), _floors(facts))


def _data(facts: Facts) -> Html:
    data = facts.data
    wafers = ", ".join(f"{n:,} {part}" for part, n in data["wafers"].items())
    checked = "Counted" if data.get("leaky") else "Proved"
    marks = f"{', '.join(facts.marks)} " if facts.marks else ""
    return paragraph(
        tag("b", f"{marks}{data['source']}"),
        f": {wafers} (locked). Split {data['split_fingerprint']} by {data.get('protocol', 'lot')}. {checked}: "
        f"{data['leak_check']}.",
    )


def _rules(facts: Facts) -> Html:
    search, objective = facts.tree["search"], facts.objective
    what = facts.metric
    if objective.weights:
        what += f" ({', '.join(f'{name} {number(weight)}' for name, weight in objective.weights.items())})"
    over = {"mean_last_3": ", mean of the last three epochs", "ema": ", a moving average over the epochs"}
    limits = [count(search["trials"], "trial")]
    limits += [duration(search["time"])] if search.get("time") else []
    limits += [f"{number(search['gpu_hours'])} GPU hours"] if search.get("gpu_hours") else []
    stop = "nobody is stopped early"
    if facts.asha:
        asha = search["stop"]["asha"]
        stop = f"ASHA stops losers from epoch {asha['first_rung']} on and lets one in {asha['factor']} go on"
    return paragraph(
        f"Maximised: {what}{over.get(objective.over, '')}, after nominal epochs of "
        f"{facts.tree['data']['epoch_samples']:,} drawn wafers. Limits: {', '.join(limits)}. Proposals by "
        f"{_SAMPLERS.get(search['sampler'], search['sampler'])}; {stop}."
    )


def _space(facts: Facts) -> Html:
    parameters = facts.space.parameters()
    if not parameters:
        return paragraph("The space holds a single configuration: nothing was searched, it was only trained.")
    leader = facts.leader

    def value(record: TrialRecord | None, name: str) -> str:
        found: Scalar | None = record.config.get(name) if record else None
        return NOTHING if found is None else number(found)

    rows = [(name, values_in_words(node), value(leader, name)) for name, node in parameters.items()]
    size = facts.space.size()
    told = f"{size:,} configurations" if size is not None else "endless configurations"
    return join(
        table(("parameter", "what may be tried", "best"), rows, words=(0, 1)),
        paragraph(f"{count(len(rows), 'parameter')}, {told}, {len(facts.trials)} tried.", class_="small"),
        _forbidden(facts),
    )


def _forbidden(facts: Facts) -> Html:
    rules = [join(tag("code", str(rule["if"])), f": {rule['why']}") for rule in facts.tree.get("forbid", [])]
    return join(tag("h3", "Never tried"), listing(rules)) if rules else Html("")


def _floors(facts: Facts) -> Html:
    """Say what had to be reached, and how the best trial does."""
    if not facts.floors:
        return Html("")
    leader = facts.leader
    missing = facts.shortfalls(leader) if leader else {}
    n_met = sum(not any(short > 0 for short in facts.shortfalls(record).values()) for record in facts.ranked)
    rows = []
    for floor in facts.floors:
        short = missing.get(floor.text)
        got = NOTHING if short is None else percent(floor.least - short)
        verdict = NOTHING if short is None else "met" if short <= 0 else f"missed by {percent(short)} points"
        rows.append((tag("code", floor.text), percent(floor.least), got, verdict))
    who = f"trial {leader.number}" if leader else "best"
    return join(
        tag("h3", "Floors"),
        table(("constraint", "floor, %", f"{who}, %", ""), rows, words=(0, 3)),
        paragraph(
            f"{n_met} of {count(len(facts.ranked), 'trial')} that ran to their end meet all floors.", class_="small"
        ),
    )
