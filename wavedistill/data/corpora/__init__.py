"""The corpora of the recipes: where their files and texts are, and how to get them."""
