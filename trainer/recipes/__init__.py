"""One file a run kind, each read top to bottom: a function of the run folder that leaves `out/` and a result."""
