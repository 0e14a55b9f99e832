"""The SQL store: every table, and free functions that take a `Session` first and flush."""
