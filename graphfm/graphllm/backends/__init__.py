"""What the methods need of language models: three small interfaces and what stands behind them.

Everything here can be had from :mod:`graphfm.graphllm`; nothing heavy is imported before it is used.
"""

__all__: list[str] = []
