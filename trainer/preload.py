"""Imported once by the forkserver, so that each run's process starts with everything heavy in memory.

Nothing here may compute with torch or touch a GPU: threads and CUDA contexts do not survive the fork.
"""

import contextlib
import gc

import datasets.arrow_writer
import peft.tuners.lora
import torch
import transformers
import trl

# `transformers` imports a model's module on first use; the starter's is wanted by nearly every run.
from transformers.models.llama import modeling_llama

import trainer.recipes.dpo
import trainer.recipes.evaluate
import trainer.recipes.generate
import trainer.recipes.kto
import trainer.recipes.playground
import trainer.recipes.refine
import trainer.recipes.reward
import trainer.recipes.sft

# A table of a thousand regular expressions that the first model to be loaded builds: a third of a second a process.
with contextlib.suppress(ImportError):
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    get_checkpoint_conversion_mapping("llama")

# What is loaded here stays for ever, and pages that no collector touches stay shared with the runs' processes.
gc.collect()
gc.freeze()

__all__ = ["datasets", "modeling_llama", "peft", "torch", "trainer", "transformers", "trl"]
