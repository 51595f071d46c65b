"""Methods in which a causal language model gives the answer, read as the likelihood of each class name."""

from graphfm.graphllm.predictors.graphadapter import GraphAdapter
from graphfm.graphllm.predictors.graphgpt import GraphGPT
from graphfm.graphllm.predictors.graphtext import GraphText
from graphfm.graphllm.predictors.graphtext_tuned import GraphTextTuned
from graphfm.graphllm.predictors.instructglm import InstructGLM
from graphfm.graphllm.predictors.llaga import LLaGA, LLaGANeighbours

__all__ = ["GraphAdapter", "GraphGPT", "GraphText", "GraphTextTuned", "InstructGLM", "LLaGA", "LLaGANeighbours"]
