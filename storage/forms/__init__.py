"""The forms that training data takes: one file each, all written and hashed by `storage.snapshots`."""
