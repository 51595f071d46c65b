"""A little input learned beside a frozen backbone, one method a file: ``prompted(backbone, GPF())(x, adj)``.

A method is a module that can be made without arguments; :func:`prompted` binds it to a backbone. ``__all__`` lists the
methods alone.
"""

from graphfm.prompts.all_in_one import AllInOne
from graphfm.prompts.base import Prompt as Prompt
from graphfm.prompts.edgeprompt import EdgePrompt, EdgePromptPlus
from graphfm.prompts.gpf import GPF, GPFPlus
from graphfm.prompts.gppt import GPPT
from graphfm.prompts.graphprompt import GraphPrompt, GraphPromptPlus
from graphfm.prompts.label_mapping import LabelMapping as LabelMapping
from graphfm.prompts.multigprompt import MultiGPrompt
from graphfm.prompts.pretext import PretextTokens as PretextTokens
from graphfm.prompts.prompted import Prompted as Prompted
from graphfm.prompts.prompted import prompted as prompted
from graphfm.prompts.similarity import SimilarityHead as SimilarityHead
from graphfm.prompts.store import load as load
from graphfm.prompts.store import save as save
from graphfm.prompts.supt import SUPT

__all__ = [
    "GPF",
    "GPPT",
    "SUPT",
    "AllInOne",
    "EdgePrompt",
    "EdgePromptPlus",
    "GPFPlus",
    "GraphPrompt",
    "GraphPromptPlus",
    "MultiGPrompt",
]
