"""Methods in which a language model improves what a graph network sees."""

__all__: list[str] = []
