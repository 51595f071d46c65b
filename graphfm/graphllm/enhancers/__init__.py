"""Methods in which a language model improves what a graph network sees."""

from graphfm.graphllm.enhancers.engine import ENGINE, EncoderENGINE
from graphfm.graphllm.enhancers.giant import GIANT
from graphfm.graphllm.enhancers.ofa import OFA, OFAZeroShot
from graphfm.graphllm.enhancers.tape import TAPE, LocalTAPE
from graphfm.graphllm.enhancers.zerog import ZeroG
from graphfm.graphllm.enhancers.zerog_frozen import FrozenZeroG

__all__ = ["ENGINE", "GIANT", "OFA", "TAPE", "EncoderENGINE", "FrozenZeroG", "LocalTAPE", "OFAZeroShot", "ZeroG"]
