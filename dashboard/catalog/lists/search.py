"""Case-insensitive search in any language: the lookup `has_word`.

SQLite's LIKE ignores the case of ASCII letters only, so a search for "é" wouldn't find "É". For a word with other
letters, a custom SQL function folds both sides. That reads every row, as LIKE does. An index of trigrams (FTS5,
pg_trgm) folds all letters itself, and can replace this lookup without changes to its callers.
"""

import unicodedata
from typing import Any

from django.db.models import CharField, TextField
from django.db.models.lookups import IContains

FUNCTION = "fold_case"


def fold(text: str | None) -> str | None:
    """Return the text case-folded and normalized, for comparison."""
    return None if text is None else unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())


class HasWord(IContains):
    """`icontains` that ignores the case of all letters."""

    def as_sqlite(self, compiler: Any, connection: Any) -> tuple[str, Any]:
        """Return the SQL for SQLite: folded on both sides, unless the word has only ASCII letters."""
        if not isinstance(self.rhs, str) or self.rhs.isascii():
            return self.as_sql(compiler, connection)
        connection.ensure_connection()
        connection.connection.create_function(FUNCTION, 1, fold, deterministic=True)
        lhs, parameters = self.process_lhs(compiler, connection)
        pattern = f"%{connection.ops.prep_for_like_query(fold(self.rhs))}%"
        return f"{FUNCTION}({lhs}) LIKE %s ESCAPE '\\'", [*parameters, pattern]


for _field in (CharField, TextField):
    _field.register_lookup(HasWord, "has_word")
