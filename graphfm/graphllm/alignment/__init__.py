"""Methods that train a language model and a graph network to agree."""

__all__: list[str] = []
