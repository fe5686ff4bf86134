"""What Alembic runs: it is handed a connection on which a transaction is under way."""

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    # SQLite rolls back changes of its schema as PostgreSQL does, if one lets it.
    transactional_ddl=True,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
