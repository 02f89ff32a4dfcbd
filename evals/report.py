"""The figures as Markdown."""

from collections.abc import Mapping, Sequence

from bench.tables import figure, print_table

from .compare import Difference, Figures
from .goals import is_share, judged


def cell(name: str, value: float | None) -> str:
    """A figure as a table shows it; shares in percent."""
    if value is None:
        return ""
    return f"{100 * value:.1f}" if is_share(name) else figure(value)


def print_figures(first: str, rows: Mapping[str, Figures]) -> None:
    """A row a configuration, a column a figure; shares in percent."""
    names = list(dict.fromkeys(name for row in rows.values() for name in row))
    print_table([first, *names], [[label, *(cell(n, row.get(n)) for n in names)] for label, row in rows.items()])


def print_list(title: str, value: str, figures: Figures) -> None:
    """A line a figure."""
    print_table([title, value], [[name, cell(name, number)] for name, number in figures.items()])


def print_differences(names: Sequence[str], found: Mapping[str, Difference]) -> None:
    """Two configurations side by side. A star marks a difference that chance explains badly."""
    rows: list[list[str]] = []
    for name, each in found.items():
        low, high, gain = (100 * number for number in (each.low, each.high, each.second - each.first))
        star = " *" if each.certain else ""
        interval = f"{low:+.1f} to {high:+.1f}"
        figures = [cell(name, each.first), cell(name, each.second)]
        rows.append([name, *figures, f"{gain:+.1f}{star}", interval, str(each.questions)])
    print_table(["in percent", *names, "difference", "95% interval", "questions"], rows)


def print_goals(reached: Mapping[str, Figures], dense: Mapping[str, Figures]) -> None:
    """What is wanted of each set, beside the plain recipe. Prints nothing where there is no goal."""
    rows: list[list[str]] = []
    for name, figures in reached.items():
        for goal, verdict in judged(name, figures):
            values = [cell(goal.figure, each.get(goal.figure)) for each in (dense.get(name, {}), figures)]
            rows.append([name, goal.figure, *values, f"{goal.least:.1f}", verdict])
    if rows:
        print_table(["set", "figure", "plain recipe", "now", "goal", ""], rows)


def print_ablation(name: str, base: Figures, without: Mapping[str, Mapping[str, Difference]]) -> None:
    """What each figure loses (negative) or gains without a part, in points. A star marks what chance explains badly."""
    names = [each for each in base if is_share(each)]
    rows = [["*all on*", *(cell(each, base[each]) for each in names)]]
    for part, found in without.items():
        gaps = [found[each] for each in names]
        rows.append([part, *(f"{100 * (g.second - g.first):+.1f}{' *' if g.certain else ''}" for g in gaps)])
    print_table([f"{name}, without", *names], rows)
