"""The lexical side of an index: BM25 over the passages, by tantivy."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rag.errors import StorageFull, StoreError, first_line
from rag.indexing.search_words import searchable

if TYPE_CHECKING:
    from tantivy import TextAnalyzer

ANALYZER = "english"
# Increment when texts give other words, so that the next ingestion indexes the words of all passages again.
WORDS_VERSION = "2"
_VERSION_FILE = "words-version"
# tantivy requires at least 15 MB per writing thread; a batch of an ingestion needs far less.
WRITER_BYTES = 32_000_000
# Longer tokens are not words and would only fill the dictionary.
LONGEST_WORD = 60
# Page numbers beyond this match nothing; tantivy refuses numbers beyond 64 bits.
LARGEST_PAGE = 2**31


@dataclass(frozen=True, slots=True)
class LexicalEntry:
    """A passage to index: ids of passage and text, page (0: none), text to search."""

    passage_id: int
    text_id: int
    page: int
    words: str


def english_analyzer() -> TextAnalyzer:
    """Return the analyzer of the index: words in lower case and ASCII, stemmed, without stop words."""
    import tantivy

    make = tantivy.Filter
    return (
        tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.simple())
        .filter(make.remove_long(LONGEST_WORD))
        .filter(make.lowercase())
        .filter(make.ascii_fold())
        .filter(make.stopword("english"))
        .filter(make.stemmer("english"))
        .build()
    )


class LexicalIndex:
    """A tantivy index in a folder; safe to search from several threads, with a single writer.

    Args:
        folder: The folder of the index, created if missing.

    Raises:
        StoreError: The folder contains something else, or is damaged.
    """

    def __init__(self, folder: Path) -> None:
        import tantivy

        self.folder = folder
        fields = tantivy.SchemaBuilder()
        # Signed, because unsigned fields make the writer of tantivy 0.27 fail.
        fields.add_integer_field("passage", stored=False, indexed=True, fast=True)
        fields.add_integer_field("text", stored=False, indexed=True, fast=True)
        fields.add_integer_field("page", stored=False, indexed=True, fast=True)
        fields.add_text_field("words", stored=False, tokenizer_name=ANALYZER, index_option="freq")
        self._schema = fields.build()
        self._analyzer = english_analyzer()
        with _store_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
            is_new = not any(folder.iterdir())
            self._index = tantivy.Index(self._schema, path=str(folder))
            self._index.register_tokenizer(ANALYZER, self._analyzer)
        if is_new:
            self.mark_current()

    @property
    def is_current(self) -> bool:
        """Whether the words of all passages are those of this version."""
        try:
            return (self.folder / _VERSION_FILE).read_text() == WORDS_VERSION
        except OSError:
            return False

    def mark_current(self) -> None:
        """Record that the words of all passages are those of this version.

        Raises:
            StorageFull: The disk is full.
            StoreError: The folder cannot be written.
        """
        with _store_errors(self.folder):
            (self.folder / _VERSION_FILE).write_text(WORDS_VERSION)

    def write(self, add: Sequence[LexicalEntry] = (), remove: Sequence[int] = ()) -> None:
        """Add and remove passages in one atomic commit.

        Raises:
            StorageFull: The disk is full.
            StoreError: tantivy refuses.
        """
        import tantivy

        with _store_errors(self.folder):
            writer = self._index.writer(WRITER_BYTES, 1)
            try:
                for passage_id in remove:
                    writer.delete_documents_by_term("passage", passage_id)
                for entry in add:
                    writer.delete_documents_by_term("passage", entry.passage_id)
                    writer.add_document(
                        tantivy.Document(
                            passage=entry.passage_id,
                            text=entry.text_id,
                            page=entry.page,
                            words=searchable(entry.words),
                        )
                    )
                writer.commit()
            finally:
                writer.wait_merging_threads()
            self._index.reload()

    def search(
        self, query: str, limit: int, text_ids: Sequence[int] | None = None, page: int | None = None
    ) -> list[tuple[int, float]]:
        """Return the passages with the highest BM25 scores for any of the query's words.

        Args:
            query: Free text; nothing in it is query syntax.
            limit: Maximum number of passages.
            text_ids: Only passages of these texts.
            page: Only passages of this page.

        Returns:
            Pairs of passage id and score, best first; ties by id.
        """
        from tantivy import Occur, Query

        words = self.words(query)
        if not words or (text_ids is not None and not text_ids):
            return []
        if page is not None and page > LARGEST_PAGE:
            return []
        terms = Query.boolean_query(
            [(Occur.Should, Query.term_query(self._schema, "words", word)) for word in words]
        )
        clauses = [(Occur.Must, terms)]
        if text_ids is not None:
            chosen = Query.term_set_query(self._schema, "text", list(text_ids))
            clauses.append((Occur.Must, Query.const_score_query(chosen, 0.0)))
        if page is not None:
            on_page = Query.term_query(self._schema, "page", page)
            clauses.append((Occur.Must, Query.const_score_query(on_page, 0.0)))
        with _store_errors(self.folder):
            searcher = self._index.searcher()
            asked = terms if len(clauses) == 1 else Query.boolean_query(clauses)
            hits = searcher.search(asked, limit, count=False).hits
            numbers = searcher.fast_field_values("passage", [address for _, address in hits])
        found = [(int(number), float(score)) for number, (score, _) in zip(numbers, hits, strict=True)]
        return sorted(found, key=lambda pair: (-pair[1], pair[0]))

    def words(self, text: str) -> list[str]:
        """Return the distinct index terms of a text: lower case, stemmed, without stop words."""
        return list(dict.fromkeys(self._analyzer.analyze(searchable(text))))

    def frequency(self, word: str) -> int:
        """Return the number of passages that contain a word of ``words``."""
        return int(self._index.searcher().doc_freq("words", word))

    def passage_ids(self) -> list[int]:
        """Return the ids of all passages, ascending."""
        from tantivy import Query

        searcher = self._index.searcher()
        if not searcher.num_docs:
            return []
        hits = searcher.search(Query.all_query(), searcher.num_docs, count=False).hits
        return sorted(int(n) for n in searcher.fast_field_values("passage", [at for _, at in hits]))

    def probe(self) -> None:
        """Read one passage to detect damaged files.

        Raises:
            StoreError: The files are damaged.
        """
        from tantivy import Query

        with _store_errors(self.folder):
            searcher = self._index.searcher()
            hits = searcher.search(Query.all_query(), 1, count=False).hits
            searcher.fast_field_values("passage", [address for _, address in hits])

    def __len__(self) -> int:
        with _store_errors(self.folder):
            return int(self._index.searcher().num_docs)

    def refresh(self) -> None:
        """Reload what another process has written."""
        with _store_errors(self.folder):
            self._index.reload()


def drop_lexical(folder: Path) -> None:
    """Delete an index from disk."""
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _store_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, OSError, RuntimeError) as error:
        reason = first_line(error)
        if "No space left" in reason or "os error 28" in reason:
            raise StorageFull(
                f"Cannot write to the lexical index {folder}: the disk is full.",
                fix="Free some space and run the same command again; finished work is kept.",
            ) from error
        fix = (
            "Another ragsmith process is writing to it: wait until it has finished."
            if "LockBusy" in reason or "Lockfile" in reason
            else "The next `ragsmith ingest` into this corpus, or Add documents, rebuilds it."
        )
        raise StoreError(f"The lexical index {folder} reports an error: {reason}.", fix=fix) from error
