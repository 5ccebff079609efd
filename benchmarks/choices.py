"""What each choice of lesson 15 buys: the digits' U-Net, once per choice and seed; lesson 15 shows the table.

    OMP_NUM_THREADS=1 python benchmarks/choices.py [--seeds 3] [--out coursework/models/trained/choices.csv]

A row is written as soon as it is measured, and rows that are there already are kept: stop it when you like. A row takes
about a minute of one core. To measure anew, remove the file.
"""

import argparse
import csv
import dataclasses
from pathlib import Path

from tqdm.auto import tqdm

from coursework.models.choices import CHOICES, COLUMNS, FILE, measure, read


def main(seeds, out):
    """Measure what the file lacks."""
    done = {(row.choice, row.seed) for row in read(out)} if out.exists() else set()
    with out.open("a", encoding="utf-8", newline="") as file:
        rows = csv.DictWriter(file, COLUMNS)
        if not file.tell():
            rows.writeheader()
        for choice, seed in tqdm([(choice, seed) for seed in range(seeds) for choice in CHOICES]):
            if (choice, seed) not in done:
                rows.writerow({k: f"{v:.5g}" if isinstance(v, float) else v for k, v in measured(choice, seed).items()})
                file.flush()


def measured(choice, seed):
    """The numbers of a run by name."""
    return dataclasses.asdict(measure(choice, seed))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=FILE)
    arguments = parser.parse_args()
    main(arguments.seeds, arguments.out)
