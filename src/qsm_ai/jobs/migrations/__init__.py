"""How the database came to be as it is: a file in ``versions`` for each change, applied in order by Alembic.

A change of any table of the database, whichever package the table belongs to, gets the next number here.
"""
