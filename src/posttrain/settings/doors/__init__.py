"""How code and members from outside come in: by path, or by an installed package; and who may say so."""
