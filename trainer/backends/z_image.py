"""Z-Image and Z-Image-Turbo."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import ZImagePipeline
from torch.nn.utils.rnn import pad_sequence

from trainer.backends.base import Conditioning
from trainer.backends.pipeline import FlowBackend

MOST_TOKENS = 512  # that the pipeline fills prompts up to before the text encoder
OUTLINE_TOKENS = 64  # of a prompt of about forty words in its chat template


class ZImageBackend(FlowBackend):
    """A ZImagePipeline folder: the network gives `x0 - eps` for times as 1 - t, and prompts keep their own lengths.

    Z-Image-Turbo is the same class as Z-Image; whether guidance is distilled into it cannot be seen in the folder, so that
    is said in `likestep.json`.
    """

    pipeline_class = ZImagePipeline
    attention = ("attention.to_q", "attention.to_k", "attention.to_v", "attention.to_out.0")
    sensitive = ("t_embedder", "cap_embedder", "all_x_embedder", "all_final_layer", "adaLN_modulation")
    block_lists = ("noise_refiner", "context_refiner", "layers")

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Conditioning:
        """See `Backend.encode`."""
        # The pipeline puts each prompt into its chat template in the very list it is given.
        rows, _ = self.pipeline.encode_prompt(list(prompts), device=self.device, do_classifier_free_guidance=False)
        pooled = torch.zeros(len(rows), 0, device=self.device)
        lengths = torch.tensor([len(row) for row in rows], device=self.device)
        return Conditioning(pad_sequence(rows, batch_first=True).float(), pooled, lengths)

    @torch.no_grad()
    def outline(self, count: int) -> Conditioning:
        """See `Backend.outline`. The pipeline cuts padding off by its values; here every prompt has `OUTLINE_TOKENS`."""
        ids = torch.zeros((count, MOST_TOKENS), dtype=torch.long, device=self.device)
        encode = self.pipeline.text_encoder
        embeds = encode(input_ids=ids, attention_mask=ids == 0, output_hidden_states=True).hidden_states[-2]
        lengths = torch.full((count,), OUTLINE_TOKENS, device=self.device)
        return Conditioning(embeds[:, :OUTLINE_TOKENS].float(), torch.zeros(count, 0, device=self.device), lengths)

    def velocity(self, x: torch.Tensor, t: torch.Tensor, conditioning: Conditioning) -> torch.Tensor:
        """See `Backend.velocity`."""
        lengths = conditioning.lengths.tolist()
        prompts = [row[:n] for row, n in zip(conditioning.embeds, lengths, strict=True)]
        out = self.transformer(list(x.unsqueeze(2).unbind(0)), 1 - t, prompts, return_dict=False)[0]
        return -torch.stack(list(out)).squeeze(2).float()

    def blocks(self) -> list[torch.nn.Module]:
        """See `Backend.blocks`; those of image and text together."""
        return list(self.transformer.layers)

    def image_tokens(self, output: torch.Tensor) -> torch.Tensor:
        """See `Backend.image_tokens`; the image's come first, then what fills them up, then the text's."""
        _, height, width = self.latent_shape
        return output[:, : (height // 2) * (width // 2)]

    def stock_call(self, steps: int, guidance: float = 1.0) -> dict:
        """See `Backend.stock_call`; this pipeline adds its scale to the conditional prediction, so 0 is none."""
        return super().stock_call(steps, guidance) | {"guidance_scale": guidance - 1}
