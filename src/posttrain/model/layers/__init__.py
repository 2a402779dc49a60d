"""How the layers of a model are computed."""
