"""Do the offsets of passages give back exactly their text? Random passages of real documents, from an index.

The stored text is compared for all of them, and the file itself for reStructuredText, which is stored as it is.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.bench_report import Group, Row
from tests.benchmarks.child import call
from tests.benchmarks.ours import settings_for
from tests.benchmarks.peps import a_slice
from tests.benchmarks.plan import Plan

FOLDERS = {"FastAPI's documentation": "docs/fastapi", "filings": "financebench/pdfs"}
PASSAGES, SEED = 500, 17


def run(plan: Plan) -> Iterator[Group]:
    """Measure; one group."""
    home = plan.workspace("offsets")
    corpora = {"Python enhancement proposals": [str(path) for path in a_slice(plan)]}
    corpora |= {name: [str(plan.data / folder)] for name, folder in FOLDERS.items()}
    here = "tests.benchmarks.bench_offsets"
    rows = []
    for name, paths in corpora.items():
        exact, total = call(f"{here}:compare", home=home, corpus=Path(paths[0]).parent.name, paths=paths).value
        rows.append(Row(name, f"{exact} of {total}"))
    yield Group("Offsets of passages", tuple(rows), f"{PASSAGES} random passages of each; exact ones are counted.")


def compare(home: str, corpus: str, paths: list[str]) -> tuple[int, int]:
    """Ingest files and return how many of the chosen passages are exact, and how many were chosen."""
    from sqlalchemy import select

    from rag import tables as db
    from rag.database import reading
    from ui.app.app import open_app

    app = open_app(settings_for(home))
    app.stores.ingest(corpus, [Path(path) for path in paths])
    index = app.stores.index(corpus)
    p, t, d, s = db.passages.c, db.texts.c, db.documents.c, db.sources.c
    numbers = select(p.id).join_from(db.passages, db.texts).where(t.index_id == index.id).order_by(p.id)
    rows = (
        select(s.path, t.text.label("whole"), p.text, p.start, p.end)
        .join_from(db.passages, db.texts)
        .join(db.documents, d.text_id == t.id)
        .join(db.sources, s.id == d.source_id)
    )
    with reading(index.engine) as connection:
        known = list(connection.scalars(numbers))
        chosen = random.Random(SEED).sample(known, min(PASSAGES, len(known)))
        exact = sum(
            all(_is_exact(Path(row.path), row.whole, row.text, row.start, row.end) for row in rows_of_one)
            for rows_of_one in (connection.execute(rows.where(p.id == number)).all() for number in chosen)
        )
    app.close()
    return exact, len(chosen)


def _is_exact(path: Path, whole: str, text: str, start: int, end: int) -> bool:
    if whole[start:end] != text:
        return False
    return path.suffix != ".rst" or path.read_text(encoding="utf-8-sig")[start:end] == text
