"""Provenance, and how to make all of this again."""

from search.views.report.album import Album
from search.views.report.facts import Facts
from search.views.report.markup import Html, fold, join, paragraph, table, tag


def write_origin(facts: Facts, album: Album) -> Html:
    """Write attempts, versions, fingerprints, commands and the resolved space."""
    data = facts.data
    header = ("started", "host", "device", "command")
    attempts = [[str(attempt.get(key, "")) for key in header] for attempt in facts.attempts]
    for row in attempts:
        row[0] = row[0][:16].replace("T", " ")
    last = facts.attempts[-1]
    listed = ", ".join(f"{name} {version}" for name, version in last["versions"].items())
    python = last.get("python", "")
    return join(
        table(header, attempts, words=(0, 1, 2, 3)),
        paragraph(
            f"{f'Python {python}, ' if python else ''}{listed}. Wafers {data['fingerprint']}, split "
            f"{data['split_fingerprint']}.",
            class_="small",
        ),
        tag("h3", "How to make it again"),
        tag("pre", _commands(facts)),
        paragraph(
            "The seed fixes the sampler's draws, but how trials side by side interleave does not repeat: another "
            "search finds its own trials. A single trial trains again bit for bit on a CPU, with its seed and as many "
            "threads.",
            class_="small",
        ),
        fold("The space with every default", tag("pre", facts.folder.resolved.read_text("utf-8"))),
    )


def _commands(facts: Facts) -> str:
    name = facts.folder.in_commands
    steps = [(str(facts.attempts[0]["command"]), "the search; the same command goes on with it")]
    if facts.winner:
        steps += [
            (f"python -m search.retrain {name}", "the winner, trained to its end"),
            (f"python -m search.evaluate {name}", "the locked test, and its ledger"),
        ]
    steps.append((f"python -m search.report {name}", "this page, from the study's folder alone"))
    width = min(max(len(command) for command, _ in steps), 60)
    return "\n".join(f"{command:<{width}}  # {why}" for command, why in steps)
