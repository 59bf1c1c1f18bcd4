"""Write `costs.csv`: what each network costs at each size that weights are published for.

    python -m tools.costs > costs.csv && mv costs.csv zoo/report/costs.csv

Networks of plugins are left out. It takes a few minutes.
"""

import csv
import sys
from dataclasses import astuple, fields

from zoo.pretrained.catalogue import list_weights, weights
from zoo.registry import ours
from zoo.report.costs import Cost, of
from zoo.report.many import count_many


def pairs() -> list[tuple[str, int]]:
    """The networks in their order, each at its own input size and at those of its weights."""
    sizes = {variant.name: {variant.input_size} for variant in ours().values()}
    for record in map(weights, list_weights()):
        if record.model in sizes:
            sizes[record.model].add(record.preprocess.size)
    return [(name, size) for name, each in sizes.items() for size in sorted(each)]


def main() -> None:
    wanted = pairs()
    counted = {}
    for size in sorted({size for _, size in wanted}):
        for each in count_many([name for name, its in wanted if its == size], input_size=size):
            counted[each.name, size] = of(each)
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(field.name for field in fields(Cost))
    writer.writerows(astuple(counted[pair]) for pair in wanted)


if __name__ == "__main__":
    main()
