"""Alembic migrations, NNNN_verb_noun; run by `storage.schema.upgrade`."""
