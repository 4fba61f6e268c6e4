"""How robust is a model? Attacks, their results example by example, and what these say."""
