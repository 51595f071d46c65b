"""Load the graphs that come with the package, and look at them. Works without a network.

python examples/01_load_and_look.py
"""

from rich.console import Console
from rich.table import Table

from graphfm.data import describe, load

COLUMNS = ["name", "nodes", "edges", "features", "classes", "mean_degree", "homophily", "text"]


def shown(value: object) -> str:
    """One cell of the table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.3g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def main() -> None:
    """Print a table of the embedded graphs, then a few texts of debian."""
    console = Console()
    table = Table(title="Embedded graphs")
    for column in COLUMNS:
        table.add_column(column.replace("_", " "), justify="left" if column in ("name", "text") else "right")
    for name in ("debian", "digits", "breast_cancer", "wine"):
        found = describe(load(name))
        table.add_row(*(shown(found[column]) for column in COLUMNS))
    console.print(table)

    debian = load("debian")
    console.print("\nA package of each section of debian, and what its neighbours are:")
    for section, label in enumerate(debian.label_text):
        node = int((debian.y == section).nonzero()[0])
        near = debian.edge_index[1, debian.edge_index[0] == node].tolist()
        neighbours = ", ".join(debian.node_name[other] for other in near[:3])
        console.print(f"  {label:<9} {debian.node_name[node]} (with {neighbours}): {debian.text[node]}", markup=False)


if __name__ == "__main__":
    main()
