"""Run migrations on the connection that ``rag.database`` passes in, inside its transaction."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
context.run_migrations()
