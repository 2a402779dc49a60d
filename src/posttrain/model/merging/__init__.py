"""Several models of one shape become one, tensor by tensor: by what formula, and its folder, which is proved."""
