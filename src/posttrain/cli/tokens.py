"""Rows of data on a terminal: tokens in the colours of what they are to training."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from posttrain.execution.report.data_view import DataView, SetView, Shown, facts_of
from posttrain.execution.report.texts import marked, printable
from posttrain.train.watch.redaction import shareable

STYLES = {"given": "dim", "learnt": "bold green", "end": "bold black on green", "end not learnt": "bold black on yellow"}
BAR = 24  # characters of the longest bar of a histogram


def set_texts(seen: DataView) -> Iterator[RenderableType]:
    """All sets, one after another, then what they share."""
    yield Text.assemble("given ", *((f" {kind} ", style) for kind, style in STYLES.items() if kind != "given"))
    for one in seen.sets:
        yield Text(f"\n{one.name}: {one.rows:,} rows", style="bold")
        yield _facts(one)
        for row in one.shown:
            yield _row(row)
    for shared in seen.overlaps:
        style = "bold red" if shared.ngram else ""
        yield Text(
            f"\n{shared.name} and the training set: {shared.exact} of {shared.questions} questions are the same, "
            f"{shared.ngram} are, or share {shared.words} words in a row"
            + (f": {shareable(', '.join(shared.at))}" if shared.at else ""),
            style=style,
        )


def _facts(one: SetView) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value, is_bad in facts_of(one):
        table.add_row(Text(name, style="dim"), Text(printable(shareable(value)), style="yellow" if is_bad else ""))
    highest = max(count for _, _, count in one.lengths)
    bars = (f"{low:>6}–{high:<6} {'█' * -(-BAR * count // highest)} {count}" for low, high, count in one.lengths if count)
    table.add_row(Text("tokens of a row", style="dim"), Text("\n".join(bars)))
    return table


def _row(row: Shown) -> Text:
    title = f"{row.where}{', ' * bool(row.title)}{row.title}: {row.length} tokens, {row.learnt} learnt"
    text = Text(f"\n{printable(shareable(title))}\n", style="dim italic")
    for token in row.tokens:
        text.append(marked(token.text), style=f"not dim not italic {STYLES[token.kind]}")
    return text
