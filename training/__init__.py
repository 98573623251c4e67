"""Training: recipes, the loop, and the parts it is made of, on top of the library, which never imports this package."""
