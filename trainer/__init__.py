"""Everything that needs torch: the recipes, and the worker that runs them in processes of their own."""
